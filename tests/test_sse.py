"""Server-Sent Events: what is encoded is decoded, and what others send too."""

from __future__ import annotations

import pytest

from quicgreen import sse


@pytest.mark.parametrize(
    "event",
    [
        sse.Event("hello"),
        sse.Event(""),
        sse.Event("two\nlines"),
        sse.Event(" a space: and a colon", "token", "17"),
    ],
)
def test_what_is_encoded_is_decoded(event: sse.Event) -> None:
    kind = "" if event.event == "message" else event.event
    lines = sse.encode(event.data, event=kind, id=event.id).decode().split("\n")
    assert list(sse.decode(lines)) == [event]


def test_what_others_send() -> None:
    """The examples of the specification (section 9.2.6), and fields to be skipped."""
    text = (
        ": a comment\n\ndata: first event\nid: 1\n\ndata:second event\nid\n\ndata:  third event\n\n"
        "data\n\ndata\ndata\n\nretry: 100\nunknown: x\nevent: e\n\ndata: [DONE]\n\ndata: cut"
    )
    events = list(sse.decode(text.split("\n")))
    assert [(e.data, e.id) for e in events] == [
        ("first event", "1"),
        ("second event", ""),
        (" third event", ""),
        ("", ""),
        ("\n", ""),
        ("[DONE]", ""),
    ]
    assert {e.event for e in events} == {"message"}


def test_events_come_one_by_one() -> None:
    """Not when the body ends."""

    def lines():
        yield from ("data: 1", "")
        raise AssertionError("asked for more than the first event needs")

    assert next(sse.decode(lines())).data == "1"


def test_json() -> None:
    assert sse.Event('{"a": 1}').json() == {"a": 1}
