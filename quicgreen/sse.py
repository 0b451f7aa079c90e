"""Server-Sent Events, both ways (https://html.spec.whatwg.org/multipage/server-sent-events.html).

for event in sse.decode(response.iter_lines()):
    print(event.data)
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any


@dataclass
class Event:
    """An event that came; the field names are httpx-sse's."""

    data: str
    event: str = "message"
    id: str = ""

    def json(self) -> Any:
        """The data, which is JSON as that of language models is."""
        return json.loads(self.data)


def encode(data: str, *, event: str = "", id: str = "") -> bytes:
    """An event as it is sent. Data of several lines is several fields."""
    lines = [f"event: {event}"] if event else []
    lines += [f"id: {id}"] if id else []
    lines += [f"data: {line}" for line in data.split("\n")]
    return ("\n".join(lines) + "\n\n").encode()


def decode(lines: Iterable[str]) -> Iterator[Event]:
    """Events out of a body's lines, each as soon as it is complete; one that is cut off is none."""
    data: list[str] = []
    kind = id = ""
    for line in lines:
        if not line:
            if data:
                yield Event("\n".join(data), kind or "message", id)
            data, kind = [], ""
            continue
        name, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if name == "data":
            data.append(value)
        elif name == "event":
            kind = value
        elif name == "id":
            id = value  # it stays until another one comes
