"""The documentation's numbers."""

from __future__ import annotations

from quicgreen import quicpro
from quicgreen.quicpro import constants
from quicgreen.session_modes import SessionMode


def test_the_numbers_of_the_session_modes() -> None:
    found = {n.removeprefix("QUICPRO_SESSION_"): v for n, v in vars(constants).items() if n.isupper()}
    assert found == {mode.name: mode.value for mode in SessionMode}


def test_the_numbers_of_the_errors() -> None:
    names = ["OK", "TIMEOUT", "INVALID_STATE", "CONNECTION_LOST", "HANDSHAKE_FAILED", "STREAM_ERROR",
             "TRANSPORT_ERROR", "INTERNAL", "UNSUPPORTED_VERSION"]  # fmt: skip
    assert [getattr(quicpro, f"QUIC_ERROR_{name}") for name in names] == list(range(9))
