"""`quicgreen info`."""

from __future__ import annotations

from pathlib import Path

import pytest
from helpers.commands import complaint, run, run_process

import quicgreen
from quicgreen import settings
from quicgreen.cli.info import information


def values_of(text: str) -> dict[str, str]:
    return dict(line.split(" => ", 1) for line in text.splitlines())


def test_info() -> None:
    result = run_process("info")
    assert (result.returncode, result.stderr) == (0, "")
    values = values_of(result.stdout)
    assert values["quicgreen.version"] == quicgreen.__version__
    assert values["udp.gso"] in ("yes", "no")
    assert values["transport.max_idle_ms"] == "30000"
    assert values.keys() == information().keys()


def test_info_of_one_key() -> None:
    result = run("info", "transport.max_idle_ms")
    assert (result.returncode, result.stdout, result.stderr) == (0, "30000\n", "")
    result = run("info", "no.such.key")
    assert (result.returncode, result.stdout) == (1, "")
    assert "no.such.key" in complaint(result)


# ---------------------------------------------------------------- settings


def test_a_setting_is_shown_as_php_shows_a_directive(monkeypatch: pytest.MonkeyPatch) -> None:
    """php -i: name => local value => master value."""
    assert run("info", "quicpro.shm_size").stdout == "quicpro.shm_size => 65536 => 65536\n"
    assert run("info", "quicpro.shm_path").stdout == "quicpro.shm_path => no value => no value\n"
    monkeypatch.setenv("QUICPRO_SHM_SIZE", "131072")
    assert run_process("info", "quicpro.shm_size").stdout == "quicpro.shm_size => 131072 => 65536\n"
    assert run("info", "quicpro.shm_size.source").stdout == "QUICPRO_SHM_SIZE\n"


def test_every_setting_and_where_it_is_from(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = tmp_path / "quicpro.toml"
    config.write_text('[quicpro]\nsession_mode = "shm_lru"\nshm_size = 32768\n')
    monkeypatch.setenv("QUICPRO_CONFIG", str(config))
    monkeypatch.setenv("QUICPRO_SHM_SIZE", "131072")
    values = values_of(run("info").stdout)
    shown = {name for name in values if name.startswith("quicpro.") and not name.endswith(".source")}
    assert shown == {f"quicpro.{name}" for name in settings.load({})}
    assert values["quicpro.session_mode"] == "4 => 0"
    assert values["quicpro.session_mode.source"] == str(config)
    assert values["quicpro.shm_size.source"] == "QUICPRO_SHM_SIZE"
    assert values["quicpro.ticket_store.source"] == "default"


@pytest.mark.parametrize(
    ("name", "value", "mode", "store"),
    [
        ("QUICPRO_SESSION_MODE", "auto", "LIVE", "memory of the process"),
        ("AWS_LAMBDA_FUNCTION_NAME", "f", "WARM", "memory of the process"),
        ("QUICPRO_SESSION_MODE", "ticket", "TICKET", "files in {cache}/quicgreen/tickets"),
        ("GATEWAY_INTERFACE", "CGI/1.1", "TICKET", "files in {cache}/quicgreen/tickets"),
        ("QUICPRO_SESSION_MODE", "4", "SHM_LRU", "shared memory /dev/shm/"),
    ],
)
def test_the_mode_in_force(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, value: str, mode: str, store: str
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv(name, value)
    values = values_of(run("info").stdout)
    assert values["session.mode"] == mode
    assert values["session.store"].startswith(store.format(cache=tmp_path))
    assert list(tmp_path.iterdir()) == [], "a look leaves nothing behind"


def test_fetch_keeps_tickets_where_auto_would_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("QUICPRO_TICKET_STORE", str(tmp_path / "tickets"))
    values = values_of(run("info").stdout)
    assert (values["session.mode"], values["fetch.session_mode"]) == ("LIVE", "TICKET")
    assert values["fetch.session_store"] == f"files in {tmp_path}/tickets"


def test_a_password_is_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("QUICPRO_SESSION_MODE", "ticket")
    monkeypatch.setenv("QUICPRO_TICKET_STORE", "redis://user:secret@127.0.0.1:1/0")
    for arguments in (["info"], ["info", "quicpro.ticket_store"], ["info", "session.store"]):
        out = run(*arguments).stdout
        assert "redis://***@127.0.0.1:1/0" in out
        assert "secret" not in out


def test_a_wrong_setting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("QUICPRO_SHM_SIZE", "many")
    result = run("info")
    assert (result.returncode, result.stdout) == (3, "")
    assert "QUICPRO_SHM_SIZE" in complaint(result)
