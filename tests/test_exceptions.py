from __future__ import annotations

import errno
import inspect
import pickle
from pathlib import Path
from typing import Any

import pytest
from greenlet import greenlet

from quicgreen import exceptions, settings
from quicgreen.exceptions import CAUSES, QuicException, QuicWarning, code_name, error

CLASSES = [c for c in vars(exceptions).values() if inspect.isclass(c) and issubclass(c, QuicException)]
WARNINGS = [c for c in vars(exceptions).values() if inspect.isclass(c) and issubclass(c, QuicWarning)]
CODES = {n: v for n, v in vars(exceptions).items() if n.startswith("QUIC_ERROR_")}


def test_the_drawing_in_the_docstring_shows_every_class_under_its_base() -> None:
    drawn: dict[str, str] = {}
    path: list[str] = []
    for line in exceptions.__doc__.splitlines():
        name = line.strip(" │├└─").split("(")[0].split(" ")[0]
        if name.startswith("Quic"):
            depth = (len(line) - len(line.lstrip(" │├└─")) - 4) // 4
            path[depth:] = [name]
            drawn[name] = path[depth - 1] if depth else ""
    assert set(drawn) == {c.__name__ for c in CLASSES + WARNINGS}
    for cls in CLASSES + WARNINGS:
        assert drawn[cls.__name__] in {"", cls.__base__.__name__}


@pytest.mark.parametrize(
    ("cls", "builtin"),
    [
        (exceptions.QuicException, OSError),
        (exceptions.QuicConnectionException, ConnectionError),
        (exceptions.QuicSocketException, ConnectionError),
        (exceptions.QuicSocketException, exceptions.QuicConnectionException),
        (exceptions.QuicTimeoutException, TimeoutError),
        (exceptions.QuicWarning, UserWarning),
    ],
)
def test_code_that_catches_the_builtin_error_goes_on_working(cls: type, builtin: type) -> None:
    assert issubclass(cls, builtin)


def test_the_constants_are_the_documented_numbers() -> None:
    assert CODES == {
        "QUIC_ERROR_OK": 0,
        "QUIC_ERROR_TIMEOUT": 1,
        "QUIC_ERROR_INVALID_STATE": 2,
        "QUIC_ERROR_CONNECTION_LOST": 3,
        "QUIC_ERROR_HANDSHAKE_FAILED": 4,
        "QUIC_ERROR_STREAM_ERROR": 5,
        "QUIC_ERROR_TRANSPORT_ERROR": 6,
        "QUIC_ERROR_INTERNAL": 7,
        "QUIC_ERROR_UNSUPPORTED_VERSION": 8,
    }


@pytest.mark.parametrize("cause", CAUSES)
def test_every_cause_makes_its_exception_with_words_and_advice(cause: str) -> None:
    row = CAUSES[cause]
    e = error(cause, "details")
    assert type(e) is row.exception
    assert (e.cause, e.code) == (cause, row.code)
    assert e.code in CODES.values()
    assert str(e) == f"{row.message}: details ({row.advice})"


def test_every_class_is_raised_for_some_cause() -> None:
    assert {c for c in CLASSES if c is not QuicException} <= {row.exception for row in CAUSES.values()}


def test_the_defaults_say_nothing_that_is_not_known() -> None:
    e = error("state")
    assert (e.wire_code, e.remote, e.request_sent, e.errno) == (None, False, True, None)
    assert str(e) == "not possible in this state (see the method's description for when it may be called)"


def test_what_is_known_is_kept() -> None:
    e = error("bind", errno=errno.EADDRINUSE, wire_code=0x10C, remote=True, request_sent=False)
    assert (e.wire_code, e.remote, e.request_sent, e.errno) == (0x10C, True, False, errno.EADDRINUSE)


def test_one_error_says_nothing_about_the_next() -> None:
    error("reset", wire_code=7, remote=True, request_sent=False)
    e = error("reset")
    assert (e.wire_code, e.remote, e.request_sent) == (None, False, True)


def test_an_exception_survives_pickling_with_what_it_knows() -> None:
    e = pickle.loads(pickle.dumps(error("reset", "x", wire_code=0x10C, remote=True)))
    assert (type(e), e.cause, e.wire_code, e.remote) == (
        exceptions.QuicStreamException,
        "reset",
        0x10C,
        True,
    )
    assert "the peer reset the stream: x" in str(e)


def test_a_warning_names_the_line_that_called_into_the_package(file: Any) -> None:
    """However deep in it the reason was found."""
    with pytest.warns(exceptions.QuicWarning) as caught:
        settings.load(file)
    assert {w.filename for w in caught} == {__file__}
    namespace = {"__name__": "quicgreen.elsewhere", "warn": exceptions.warn, "kind": exceptions.QuicWarning}
    exec("def outer(): inner()\ndef inner(): warn('deep', kind)", namespace)
    with pytest.warns(exceptions.QuicWarning, match="deep") as caught:
        namespace["outer"]()
    assert {w.filename for w in caught} == {__file__}


def test_a_warning_where_nobody_called() -> None:
    """A greenlet whose first function is the package's own."""
    namespace = {"__name__": "quicgreen.elsewhere", "warn": exceptions.warn, "kind": exceptions.QuicWarning}
    exec("def inner(): warn('alone', kind)", namespace)
    with pytest.warns(exceptions.QuicWarning, match="alone"):
        greenlet(namespace["inner"]).switch()


@pytest.fixture
def file(tmp_path: Path) -> dict[str, str]:
    """An environment that names a configuration file with a name that is none."""
    (tmp_path / "a.toml").write_text("[quicpro]\nnone = 1\n")
    return {"QUICPRO_CONFIG": str(tmp_path / "a.toml")}


@pytest.mark.parametrize(
    ("code", "application", "name"),
    [
        (0x100, True, "H3_NO_ERROR"),
        (0x10C, True, "H3_REQUEST_CANCELLED"),
        (0x200, True, "QPACK_DECOMPRESSION_FAILED"),
        (0x0, False, "NO_ERROR"),
        (0xA, False, "PROTOCOL_VIOLATION"),
        (0x100, False, "0x100"),
        (0x42, True, "0x42"),
    ],
)
def test_codes_have_the_names_of_the_documents(code: int, application: bool, name: str) -> None:
    assert code_name(code, application) == name
