"""What a user asks with: each call reports itself to locust."""

from __future__ import annotations

import time
from base64 import b64encode
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from locust import User
from locust.exception import RescheduleTask

from ..client import Session
from ..exceptions import QuicClientException, QuicException
from ..messages import Response
from ..websocket import ConnectionClosed, WebSocket
from .outcomes import EventStream, QuicResponse, since, status_error


class QuicSession:
    """What a user asks with: a `quicgreen.Session` that reports to locust. Paths are below the user's host.

    Attributes:
        session: the session itself; what is done with it does not count.
        request_name: names all requests that have no name of their own; see `rename_request`.
    """

    def __init__(self, base_url: str, request_event: Any, user: User | None, session: Session) -> None:
        self.base_url = base_url.rstrip("/")
        self.request_event = request_event
        self.user = user
        self.session = session
        self.request_name: str | None = None

    def request(
        self,
        method: str,
        url: str,
        name: str | None = None,
        *,
        catch_response: bool = False,
        stream: bool = False,
        headers: Any = None,
        auth: tuple[str, str] | None = None,
        context: dict[str, Any] | None = None,
        **options: Any,
    ) -> QuicResponse:
        """Send a request; what the network or the server does wrong is reported, and not raised.

        Args:
            url: a path below the host, or a whole URL.
            name: under which it counts, where paths differ.
            catch_response: report it at the end of a `with` block, which may decide by `success()` and
                `failure()`.
            stream: return when the head is there, whose time is what counts then; the body is to be read.
            auth: user and password, for Basic authentication.
            context: for listeners of the event `request`.
            options: the others of `quicgreen.Session.request`: params, data, json, timeout, early_data.

        Raises:
            QuicClientException: wrong arguments; nothing was sent or reported.
        """
        meta = self._meta(method, url, name, context)
        response: Response | None = None
        exception: Exception | None = None
        started = time.perf_counter()
        try:
            response = self.session.request(
                method, meta["url"], headers=_with_auth(headers, auth), stream=stream, **options
            )
            meta["response_length"] = (response.content_length or 0) if stream else len(response.content)
            if response.status_code >= 400:
                exception = status_error(response)
        except QuicClientException:
            raise
        except QuicException as e:
            exception = e
        meta["response_time"] = since(started)
        outcome = QuicResponse(self.request_event.fire, meta, response, exception, catch_response)
        if not catch_response:
            outcome._report()
        return outcome

    @contextmanager
    def sse(
        self,
        url: str,
        method: str = "POST",
        name: str | None = None,
        *,
        headers: Any = None,
        auth: tuple[str, str] | None = None,
        context: dict[str, Any] | None = None,
        **options: Any,
    ) -> Iterator[EventStream]:
        """A request that Server-Sent Events answer, as language models do:

            with self.client.sse("/v1/chat/completions", json=question) as events:
                for event in events:
                    ...

        Counts three times under its name: by its method, with the time to the end of the block; as TTFT, with
        the time to the first event; as TPOT, with the mean time from one event to the next. The last two only
        when it was no failure: a status of 400 or more, an answer of another kind, a stream that is cut off,
        an exception in the block (which goes on), or what `failure()` says.

        Args: as `request`.
        """
        meta = self._meta(method, url, name, context)
        events = EventStream(self.request_event.fire, meta, time.perf_counter())
        meta["response"] = events
        options["headers"] = _with_auth(headers, auth)
        try:
            events._begin(self.session.request(method, meta["url"], stream=True, **options))
        except QuicClientException:
            raise
        except QuicException as e:
            events.error = e
        try:
            yield events
        except Exception as e:
            events._end(e)
            raise
        else:
            events._end(None)
        finally:
            if events.response is not None:
                events.response.close()

    def websocket(
        self, url: str, name: str | None = None, *, context: dict[str, Any] | None = None, **options: Any
    ) -> MeasuredWebSocket:
        """Open a WebSocket, which counts as WS; `options` are those of `quicgreen.websocket.connect`.

        Raises:
            locust.exception.RescheduleTask: it could not be opened; that was reported.
        """
        name = name or self.request_name or url
        with self._measured("WS", name, context) as meta:
            meta["url"] = self._build_url(url)
            ws = self.session.websocket(meta["url"], **options)
        return MeasuredWebSocket(self, ws, name, meta["context"])

    @contextmanager
    def rename_request(self, name: str) -> Iterator[None]:
        """In this block all requests that have no name of their own count under this one."""
        self.request_name = name
        try:
            yield
        finally:
            self.request_name = None

    # ---------------------------------------------------------------- by method

    def get(self, url: str, **options: Any) -> QuicResponse:
        """`request("GET", ...)`."""
        return self.request("GET", url, **options)

    def head(self, url: str, **options: Any) -> QuicResponse:
        """`request("HEAD", ...)`."""
        return self.request("HEAD", url, **options)

    def options(self, url: str, **options: Any) -> QuicResponse:
        """`request("OPTIONS", ...)`."""
        return self.request("OPTIONS", url, **options)

    def post(self, url: str, data: Any = None, **options: Any) -> QuicResponse:
        """`request("POST", ...)`."""
        return self.request("POST", url, data=data, **options)

    def put(self, url: str, data: Any = None, **options: Any) -> QuicResponse:
        """`request("PUT", ...)`."""
        return self.request("PUT", url, data=data, **options)

    def patch(self, url: str, data: Any = None, **options: Any) -> QuicResponse:
        """`request("PATCH", ...)`."""
        return self.request("PATCH", url, data=data, **options)

    def delete(self, url: str, **options: Any) -> QuicResponse:
        """`request("DELETE", ...)`."""
        return self.request("DELETE", url, **options)

    # ---------------------------------------------------------------- reporting

    def _build_url(self, url: str) -> str:
        return url if "://" in url[:8] else self.base_url + url

    def _meta(
        self, method: str, url: str, name: str | None, context: dict[str, Any] | None
    ) -> dict[str, Any]:
        given = self.user.context() if self.user is not None else {}
        return {
            "request_type": method,
            "name": name or self.request_name or url,
            "url": self._build_url(url),
            "context": {**given, **(context or {})},
            "start_time": time.time(),
            "response": None,
            "response_time": 0.0,
            "response_length": 0,
            "exception": None,
        }

    @contextmanager
    def _measured(self, kind: str, name: str, context: dict[str, Any] | None) -> Iterator[dict[str, Any]]:
        """Report what the block does; what it fails at ends the task."""
        meta = self._meta(kind, name, name, context)
        started = time.perf_counter()
        try:
            yield meta
        except QuicClientException:
            raise
        except QuicException as e:
            if isinstance(e, ConnectionClosed) and e.cause == "websocket-closed":
                raise  # in order
            meta["exception"] = e
        meta["response_time"] = since(started)
        self.request_event.fire(**meta)
        if meta["exception"] is not None:
            raise RescheduleTask() from meta["exception"]


def _with_auth(headers: Any, auth: tuple[str, str] | None) -> Any:
    if auth is None:
        return headers
    token = b64encode(":".join(auth).encode()).decode()
    return {**dict(headers or {}), "authorization": f"Basic {token}"}


class MeasuredWebSocket:
    """A WebSocket whose messages count in locust's statistics: those sent as WSS, those received as WSR with
    the time that was waited for them, and calls as WSC with the time until the answer.

    What fails is reported, and ends the task (`locust.exception.RescheduleTask`); the end that both sides
    agreed on is no failure, and raises `ConnectionClosedOK`.

    Attributes:
        ws: the WebSocket itself; what is done with it does not count.
    """

    def __init__(self, client: QuicSession, ws: WebSocket, name: str, context: dict[str, Any]) -> None:
        self.ws = ws
        self._client, self._name, self._context = client, name, context

    def send(self, message: str | bytes, name: str | None = None) -> None:
        """Send a message."""
        with self._client._measured("WSS", name or self._name, self._context) as meta:
            meta["response_length"] = len(message)
            self.ws.send(message)

    def recv(self, timeout: float | None = None, name: str | None = None) -> Any:
        """Wait for the next message, at most `timeout` seconds."""
        with self._client._measured("WSR", name or self._name, self._context) as meta:
            message = self.ws.recv(timeout)
            meta["response_length"] = len(message)
            return message

    def call(self, message: str | bytes, timeout: float | None = None, name: str | None = None) -> Any:
        """Send a message and wait for the next one, which is its answer."""
        with self._client._measured("WSC", name or self._name, self._context) as meta:
            self.ws.send(message)
            answer = self.ws.recv(timeout)
            meta["response_length"] = len(answer)
            return answer

    def close(self) -> None:
        """Close it in order."""
        self.ws.close()

    def __enter__(self) -> MeasuredWebSocket:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()
