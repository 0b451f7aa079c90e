"""`quicgreen explain`."""

from __future__ import annotations

import pytest
from helpers.commands import complaint, run, run_process

import quicgreen
from quicgreen import exceptions
from quicgreen.cli.explain import everything, find
from quicgreen.exceptions import CAUSES, H3_ERRORS, TRANSPORT_ERRORS, error


def names(text: str) -> list[str]:
    return [entry.name for entry in find(text)]


def test_a_code_of_the_last_error() -> None:
    result = run_process("explain", "4")
    assert (result.returncode, result.stderr) == (0, "")
    first, *rest = result.stdout.splitlines()
    assert first == "QUIC_ERROR_HANDSHAKE_FAILED (code 4)"
    assert [line[:6].strip() for line in rest if line[2] != " "] == ["what", "why", "next"]
    assert "certificate: TLS handshake failed: invalid certificate" in result.stdout


@pytest.mark.parametrize("number", range(9))
def test_every_code_by_its_number_and_its_name(number: int) -> None:
    (entry,) = find(str(number))
    assert getattr(quicgreen, entry.name) == number
    assert names(entry.name.lower()) == [entry.name]
    raised = {cause for cause, row in CAUSES.items() if row.code == number}
    assert {line.split(":")[0] for line in entry.why} == raised


@pytest.mark.parametrize("number", [*H3_ERRORS, *TRANSPORT_ERRORS], ids=hex)
def test_every_code_of_the_wire_by_its_number_and_its_name(number: int) -> None:
    name = H3_ERRORS.get(number) or TRANSPORT_ERRORS[number]
    assert name in names(hex(number))
    assert names(name)[0] == name
    if number > 8:
        assert name in names(str(number))


def test_every_class_cause_and_warning_is_found_by_its_name() -> None:
    classes = {
        n
        for module in (quicgreen, quicgreen.websocket)
        for n in module.__all__
        if isinstance(getattr(module, n), type)
        and issubclass(getattr(module, n), (quicgreen.QuicException, quicgreen.QuicWarning))
    }
    assert len(classes) > 20
    for name in classes | CAUSES.keys():
        (entry,) = find(name)
        assert entry.name == name
        assert entry.what
        assert all(entry.then)
    for cause, row in CAUSES.items():
        assert f"{cause}: {row.message}" in find(row.exception.__name__)[0].why


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("unknown_ca", ["unknown_ca"]),
        ("Unknown CA", ["unknown_ca"]),
        ("alert 48", ["unknown_ca"]),
        ("TLS alert 120", ["no_application_protocol"]),
        ("48", ["unknown_ca"]),
        ("0x130", ["unknown_ca"]),
        ("0X130", ["unknown_ca"]),
        ("304", ["unknown_ca"]),
        ("0x30", []),
        ("0x10A", ["H3_MISSING_SETTINGS", "unexpected_message"]),
        ("0x111", ["CRYPTO_ERROR"]),
        ("0x7", ["FRAME_ENCODING_ERROR"]),
        ("request-rejected", ["H3_REQUEST_REJECTED"]),
        ("internal_error", ["INTERNAL_ERROR", "internal_error"]),
        ("0x21", ["reserved"]),
        ("0x40", ["reserved"]),
        ("1006", ["websocket 1006"]),
        ("websocket 1006", ["websocket 1006"]),
        ("websocket_closed", ["websocket-closed"]),
        ("007", ["QUIC_ERROR_INTERNAL"]),
    ],
)
def test_other_ways_to_say_it(text: str, found: list[str]) -> None:
    assert names(text) == found


@pytest.mark.parametrize("cause", ["certificate", "handshake-timeout", "unknown-frame", "engine", "reset"])
def test_a_message_that_was_printed(cause: str) -> None:
    """With all that stands around it in a log."""
    line = f"2026-01-01 quicgreen: {error(cause, 'and this is why')}"
    assert names(line) == [cause]
    result = run("explain", line)
    assert result.stdout.startswith(f"{cause} (cause)\n  what  {CAUSES[cause].message}\n")
    assert CAUSES[cause].advice in result.stdout


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("QUIC_ERROR_TIMOUT", "did you mean QUIC_ERROR_TIMEOUT"),
        ("QuicStreamExeption", "did you mean QuicStreamException"),
        ("certifcate", "certificate"),
        ("qqqqqq", "quicgreen explain lists all names"),
        ("9999", "no code"),
        ("0x99", "no code"),
        ("0xzz", "nothing is called"),
        ("-1", "nothing is called"),
        ("", "nothing is called ''"),
    ],
)
def test_what_is_not_known(text: str, words: str) -> None:
    result = run("explain", text)
    assert (result.returncode, result.stdout) == (1, "")
    assert words in complaint(result)


def test_all_names() -> None:
    result = run("explain")
    assert (result.returncode, result.stderr) == (0, "")
    lines = result.stdout.splitlines()
    assert len(lines) == len(everything()) > 130
    assert len(set(lines)) == len(lines)


def test_the_numbers_have_one_home() -> None:
    assert {e.name for e in everything()} >= {n for n in vars(exceptions) if n.startswith("QUIC_ERROR_")}
