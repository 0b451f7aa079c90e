"""Users of locust (https://locust.io) over HTTP/3: the extra `locust`.

    from locust import between, task
    from quicgreen.locust import QuicUser

    class Visitor(QuicUser):
        host = "https://shop.example"
        wait_time = between(1, 5)

        @task
        def look(self):
            self.client.get("/item/17", name="/item/[id]")

A user is used like locust's `FastHttpUser`; its client is a `quicgreen.Session` that reports to locust's
statistics: requests, Server-Sent Events with the time to the first of them, and WebSockets.
docs/load-testing.md says how to run it on one machine and on many.
"""

try:
    import locust as _locust  # noqa: F401 - patches the standard library, as locust's users expect it
except ImportError as e:
    raise ImportError("quicgreen.locust needs locust: pip install 'quicgreen[locust]'") from e

from .client import MeasuredWebSocket, QuicSession
from .outcomes import EventStream, QuicResponse
from .user import QuicUser

__all__ = ["EventStream", "MeasuredWebSocket", "QuicResponse", "QuicSession", "QuicUser"]
