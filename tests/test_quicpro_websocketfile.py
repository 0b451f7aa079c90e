"""PHP's stream functions over a WebSocket: what they refuse. Chats are in tests/interop."""

from __future__ import annotations

from typing import Any

import gevent
import pytest
from helpers.quicpro import connected, serving

from quicgreen.quicpro import QuicClientException, fclose, feof, fgets, fwrite, quicpro_get_last_error
from quicgreen.testing import Certificate
from quicgreen.websocket import ConnectionClosed, ConnectionClosedError


def echo(session: Any) -> None:
    ws = session.upgrade()
    for line in ws:
        ws.write(line)
    fclose(ws)


def test_text_and_bytes(certificate: Certificate) -> None:
    with serving(certificate, echo) as server, connected(server, certificate) as sess:
        ws = sess.upgrade("/")
        assert fwrite(ws, "καλημέρα\n") == 9
        assert fgets(ws) == "καλημέρα\n"
        assert fwrite(ws, b"bytes\n") == 6
        assert fgets(ws) == "bytes\n"
        assert fwrite(ws, "") == 0
        for wrong in (b"\xff", 5, None):
            with pytest.raises(QuicClientException):
                fwrite(ws, wrong)  # type: ignore[arg-type]
        assert quicpro_get_last_error() == 2
        assert fclose(ws)
        assert quicpro_get_last_error() == 0


@pytest.mark.parametrize("thing", [None, "ws", 5])
def test_what_is_no_websocket(thing: Any) -> None:
    for call in (
        lambda: fwrite(thing, "x"),
        lambda: fgets(thing),
        lambda: feof(thing),
        lambda: fclose(thing),
    ):
        with pytest.raises(QuicClientException, match="what upgrade"):
            call()


def test_after_the_end(certificate: Certificate) -> None:
    with serving(certificate, echo) as server, connected(server, certificate) as sess:
        ws = sess.upgrade("/")
        fclose(ws)
        with pytest.raises(ConnectionClosed):
            fwrite(ws, "late")
        assert fgets(ws) == ""
        assert feof(ws)


def test_the_session_is_closed_below_it(certificate: Certificate) -> None:
    with serving(certificate, echo) as server, connected(server, certificate) as sess:
        ws = sess.upgrade("/")
        reading = gevent.spawn(fgets, ws)
        gevent.sleep(0.01)
        sess.close()
        with pytest.raises(ConnectionClosedError):
            reading.get(timeout=10)
