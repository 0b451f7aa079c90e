"""Settings by the documentation's names: where they come from, and what is refused."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import pytest

from quicgreen import QuicClientException, QuicWarningInvalidParameters, settings


@pytest.fixture
def file(tmp_path: Path) -> Any:
    """Writes a configuration file; returns the environment that names it."""

    def write(text: str, **environ: str) -> dict[str, str]:
        path = tmp_path / "quicpro.toml"
        path.write_text(text)
        return {"QUICPRO_CONFIG": str(path), **environ}

    return write


def test_the_defaults() -> None:
    found = settings.load({})
    assert {name: tuple(setting) for name, setting in found.items()} == {
        "session_mode": (0, "default"),
        "shm_size": (65536, "default"),
        "shm_path": ("", "default"),
        "ticket_store": ("", "default"),
    }


def test_the_environment_comes_before_the_file_and_that_before_the_default(file: Any) -> None:
    environ = file(
        '[quicpro]\nsession_mode = "ticket"\nshm_size = 131072\n[other]\nx = 1\n',
        QUICPRO_SHM_SIZE="20000",
        QUICPRO_SHM_PATH="",
    )
    found = settings.load(environ)
    assert found["session_mode"] == (2, environ["QUICPRO_CONFIG"])
    assert found["shm_size"] == (20000, "QUICPRO_SHM_SIZE")
    assert found["shm_path"] == ("", "default")  # empty is as not set


def test_they_are_looked_up_anew_each_time(file: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("QUICPRO_CONFIG", file('[quicpro]\nticket_store = "/a"')["QUICPRO_CONFIG"])
    assert settings.load()["ticket_store"].value == "/a"
    monkeypatch.setenv("QUICPRO_TICKET_STORE", "redis://127.0.0.1/1")
    assert settings.load()["ticket_store"] == ("redis://127.0.0.1/1", "QUICPRO_TICKET_STORE")


@pytest.mark.parametrize(
    ("text", "number"),
    [("auto", 0), ("live", 1), ("TICKET", 2), (" Warm ", 3), ("shm_lru", 4), ("shm-lru", 4), ("2", 2)],
)
def test_modes_have_names_and_numbers(text: str, number: int) -> None:
    assert settings.load({"QUICPRO_SESSION_MODE": text})["session_mode"].value == number


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ('session_mode = "often"', "auto, live, ticket, warm, shm_lru"),
        ("session_mode = 5", "0 to 4"),
        ("session_mode = -1", "0 to 4"),
        ("session_mode = true", "0 to 4"),
        ("session_mode = 1.0", "0 to 4"),
        ("session_mode = []", "0 to 4"),
        ("shm_size = 16383", "16384 to 8388608"),
        ("shm_size = 8388609", "16384 to 8388608"),
        ('shm_size = "64k"', "number of bytes"),
        ("shm_size = true", "number of bytes"),
        ("shm_size = 65536.0", "number of bytes"),
        ("shm_path = 5", "text"),
        ('shm_path = "a\\u0000b"', "text"),
        ('ticket_store = ["/a"]', "text"),
    ],
)
def test_a_wrong_value_is_refused_by_its_name_and_place(file: Any, line: str, words: str) -> None:
    environ = file(f"[quicpro]\n{line}\n")
    with pytest.raises(QuicClientException, match=words) as caught:
        settings.load(environ)
    assert caught.value.cause == "argument"
    assert f"{environ['QUICPRO_CONFIG']}: quicpro.{line.split()[0]} is" in str(caught.value)


@pytest.mark.parametrize(
    ("variable", "value"),
    [("QUICPRO_SESSION_MODE", "5"), ("QUICPRO_SHM_SIZE", "-65536"), ("QUICPRO_SHM_SIZE", "\u0661" * 5)],
)
def test_a_wrong_value_of_the_environment_is_refused(variable: str, value: str) -> None:
    with pytest.raises(QuicClientException, match=variable):
        settings.load({variable: value})


def test_a_name_that_is_not_known_is_warned_of(file: Any) -> None:
    environ = file("[quicpro]\nsession_moed = 1\nshm_size = 32768\n")
    with pytest.warns(QuicWarningInvalidParameters, match=r"session_moed is not .* session_mode") as caught:
        found = settings.load(environ)
    assert len(caught) == 1
    assert found["shm_size"].value == 32768
    with warnings.catch_warnings():  # other tables are other programs'
        warnings.simplefilter("error")
        settings.load(file("[other]\nsession_moed = 1\n"))


@pytest.mark.parametrize("text", ["[quicpro", "quicpro = 5", "[[quicpro]]\nx = 1", "\xff\xfe"])
def test_a_file_that_is_none_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "bad.toml"
    path.write_bytes(text.encode("latin-1"))
    with pytest.raises(QuicClientException, match=f"QUICPRO_CONFIG: {path}"):
        settings.load({"QUICPRO_CONFIG": str(path)})


def test_a_file_that_cannot_be_read_is_refused(tmp_path: Path) -> None:
    for path in (tmp_path / "missing", tmp_path):
        with pytest.raises(QuicClientException, match=f"QUICPRO_CONFIG: {path}") as caught:
            settings.load({"QUICPRO_CONFIG": str(path)})
        assert caught.value.errno


def test_what_the_program_gives_comes_first() -> None:
    found = settings.load({"QUICPRO_SHM_SIZE": "131072"}, {"shm_size": 65536})
    assert found["shm_size"] == (65536, "given")
    with pytest.raises(QuicClientException, match="given"):
        settings.load({}, {"shm_size": "big"})
    assert settings.check("session_mode")("live") == 1
