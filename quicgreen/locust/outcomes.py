"""What became of a request, for whoever sent it and for locust's statistics."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

from locust.exception import CatchResponseError, LocustError, ResponseError

from .. import sse
from ..exceptions import QuicException, error
from ..messages import Response

_DONE = "[DONE]"

Fire = Callable[..., Any]
"""Locust's event `request`: what is fired is counted."""


def since(started: float) -> float:
    """Milliseconds."""
    return (time.perf_counter() - started) * 1000


def status_error(response: Response) -> QuicException:
    """Without the URL: locust counts errors by their texts, and keeps each text."""
    exception = error("http-status", f"{response.status_code} {response.reason}")
    exception.response = response  # type: ignore[attr-defined]
    return exception


class Outcome:
    """What became of a request, to be reported once: as it went, or as a `with` block says."""

    def __init__(self, fire: Fire, meta: dict[str, Any]) -> None:
        self.request_meta = meta
        """What is reported; locust's listeners of the event `request` get it."""
        self._fire = fire
        self._manual: bool | Exception = False
        self._entered = False

    def _report(self) -> None:
        self._fire(**self.request_meta)

    def success(self) -> None:
        """Count it as a success, whatever came. In a `with` block."""
        self._check_entered()
        self._manual = True

    def failure(self, exc: Exception | str) -> None:
        """Count it as a failure, for this reason. In a `with` block."""
        self._check_entered()
        self._manual = exc if isinstance(exc, Exception) else CatchResponseError(exc)

    def _check_entered(self) -> None:
        if not self._entered:
            raise LocustError("success() and failure() are for `with` blocks, with catch_response=True")

    def _settle(self) -> None:
        """What the block said, if it said something."""
        if self._manual is True:
            self.request_meta["exception"] = None
        elif isinstance(self._manual, Exception):
            self.request_meta["exception"] = self._manual


class QuicResponse(Outcome):
    """A response with all attributes of `quicgreen.Response`, and locust's; or that there is none.

    Attributes:
        error: why there is no response, or why it counts as a failure; None when it does not.
        status_code: 0 when there is no response. `content` and `text` are None then.
    """

    def __init__(
        self,
        fire: Fire,
        meta: dict[str, Any],
        response: Response | None,
        exception: Exception | None,
        catch: bool,
    ) -> None:
        super().__init__(fire, meta)
        meta["response"] = self
        meta["exception"] = self.error = exception
        self._response = response
        self._catch = catch
        self.status_code = 0 if response is None else response.status_code

    def __getattr__(self, name: str) -> Any:
        if name[:1] != "_" and self._response is not None:
            return getattr(self._response, name)
        raise AttributeError(f"no {name!r}: there is no response, since {self.error!r}")

    @property
    def ok(self) -> bool:
        """There is a response, with a status below 400."""
        return 0 < self.status_code < 400

    @property
    def content(self) -> bytes | None:
        """The body; None without a response."""
        return None if self._response is None else self._response.content

    @property
    def text(self) -> str | None:
        """The body as text; None without a response."""
        return None if self._response is None else self._response.text

    def json(self) -> Any:
        """The body, as JSON.

        Raises:
            json.JSONDecodeError: it is none."""
        return self.__getattr__("json")()

    def raise_for_status(self) -> None:
        """Raise what makes it a failure, if something does."""
        if self.request_meta["exception"] is not None:
            raise self.request_meta["exception"]

    def __enter__(self) -> QuicResponse:
        if not self._catch:
            raise LocustError("a `with` block needs catch_response=True")
        self._entered = True
        return self

    def __exit__(self, kind: Any, value: BaseException | None, traceback: Any) -> bool:
        if self._response is not None:
            self._response.close()
        if self._manual is False and value is not None:
            if not isinstance(value, ResponseError):
                return False  # an error of the task, which locust reports as such
            self._manual = value
        self._settle()
        self._report()
        return value is None or isinstance(value, ResponseError)


class EventStream(Outcome):
    """Server-Sent Events as they come, and how long they took: what `QuicSession.sse` gives.

    A loop over it gives `quicgreen.sse.Event`s, until the body ends; none when there is no response. The
    `[DONE]` that follows a language model's last token is not counted.

    Attributes:
        response: the response, whose body this reads; None when there is none.
        error: why it counts as a failure; None when it does not.
        count: events so far.
        first_ms, last_ms: from the request to the first event, and to the last one so far.
    """

    def __init__(self, fire: Fire, meta: dict[str, Any], started: float) -> None:
        super().__init__(fire, meta)
        self.response: Response | None = None
        self.error: Exception | None = None
        self.count = 0
        self.first_ms = self.last_ms = 0.0
        self._entered = True
        self._started = started
        self._bytes = 0

    @property
    def status_code(self) -> int:
        """0 when there is no response."""
        return 0 if self.response is None else self.response.status_code

    def _begin(self, response: Response) -> None:
        self.response = response
        kind = response.headers.get("content-type") or ""
        if response.status_code >= 400:
            self.error = status_error(response)
        elif kind.partition(";")[0].strip().lower() != "text/event-stream":
            self.error = CatchResponseError(f"no event stream, but {kind or 'no content-type'}")

    def _lines(self) -> Iterator[str]:
        assert self.response is not None
        for line in self.response.iter_lines():
            self._bytes += len(line) + 1
            yield line

    def __iter__(self) -> Iterator[sse.Event]:
        if self.response is None or self.error is not None:
            return
        try:
            for event in sse.decode(self._lines()):
                if event.data != _DONE:
                    self.last_ms = since(self._started)
                    self.first_ms = self.first_ms or self.last_ms
                    self.count += 1
                yield event
        except QuicException as e:  # cut off: the block goes on, and this is reported at its end
            self.error = e

    def _end(self, exception: Exception | None) -> None:
        meta = self.request_meta
        meta["response_time"] = since(self._started)
        meta["response_length"] = self._bytes
        meta["exception"] = exception or self.error
        self._settle()
        self._report()
        if meta["exception"] is not None:
            return
        # Of their own, so that they have percentiles of their own.
        if self.count:
            self._fire(**{**meta, "request_type": "TTFT", "response_time": self.first_ms})
        if self.count > 1:
            each = (self.last_ms - self.first_ms) / (self.count - 1)
            self._fire(**{**meta, "request_type": "TPOT", "response_time": each})
