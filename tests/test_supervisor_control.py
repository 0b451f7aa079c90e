from __future__ import annotations

import os
import socket
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from quicgreen import QuicServerException
from quicgreen.supervisor import control
from quicgreen.supervisor.control import Control, ask


@pytest.fixture
def serving() -> Iterator[Control]:
    """One that answers in a thread, as a supervisor does in its loop."""
    made = Control(os.getpid(), lambda question: {"said": question, "list": list(range(20_000))})
    stop = threading.Event()

    def run() -> None:
        while not stop.is_set():
            made.serve()
            stop.wait(0.002)

    thread = threading.Thread(target=run)
    thread.start()
    yield made
    stop.set()
    thread.join()
    made.close()


def test_a_question_is_answered(serving: Control) -> None:
    told = ask(os.getpid(), "status")
    assert told["said"] == "status"
    assert len(told["list"]) == 20_000


def test_who_does_not_read_holds_up_nobody(serving: Control) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as s:
        s.setblocking(False)
        s.bind("")
        s.connect(control._name(os.getpid()))
        for _ in range(100):
            try:
                s.send(b"x")
            except BlockingIOError:
                break
        assert ask(os.getpid(), "status")["said"] == "status"


def test_nobody_there() -> None:
    with pytest.raises(QuicServerException, match="process 1: ") as caught:
        ask(1, "status")
    assert caught.value.cause == "control"


def test_an_answer_of_another_process_is_not_believed(serving: Control, monkeypatch: Any) -> None:
    monkeypatch.setattr(control, "_name", lambda pid: f"\0quicgreen.supervisor.{os.getpid()}")
    with pytest.raises(QuicServerException, match="in the place of 1"):
        ask(1, "status")


def test_another_user_is_told_so(serving: Control, monkeypatch: Any) -> None:
    real = os.geteuid()
    monkeypatch.setattr(control, "_CREDENTIALS", _Lie(real + 12345))
    with pytest.raises(QuicServerException, match="only the supervisor's user and root"):
        ask(os.getpid(), "status")


class _Lie:
    """Credentials with another user in them."""

    def __init__(self, uid: int) -> None:
        self.size, self._uid = 12, uid

    def unpack(self, what: bytes) -> tuple[int, int, int]:
        return os.getpid(), self._uid, 0


def test_one_that_does_not_answer(monkeypatch: Any) -> None:
    silent = Control(os.getpid(), lambda question: {})
    with pytest.raises(QuicServerException, match="no answer within"):
        ask(os.getpid(), "status", timeout_s=0.05)
    with pytest.raises(QuicServerException, match="control socket"):
        Control(os.getpid(), lambda question: {})
    silent.close()
