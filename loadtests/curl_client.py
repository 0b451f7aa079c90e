"""libcurl from Python (curl_cffi), HTTP/3 only. A child process of the benchmark (see processes.py).

usage: curl_client.py PORT CERT
Commands: {"how": "single" | "tasks" | "threads", "count": N}
"""

from __future__ import annotations

import asyncio
import importlib.metadata
import json
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from curl_cffi import AsyncSession, Curl, CurlHttpVersion, Session

AT_ONCE = 100


class Load:
    """Requests, counted."""

    def __init__(self, port: str, cert: str) -> None:
        self.url = f"https://127.0.0.1:{port}/small"
        self.options: dict[str, Any] = {"verify": cert, "http_version": CurlHttpVersion.V3ONLY}
        self.session = Session(**self.options)
        self.loop = asyncio.new_event_loop()
        self.tasks_session: Any = None
        self.threads = ThreadPoolExecutor(AT_ONCE)

    def single(self, count: int) -> dict[str, Any]:
        """One after another on one Session."""
        body, times = 0, []
        for _ in range(count):
            started = time.perf_counter_ns()
            response = self.session.get(self.url)
            times.append(time.perf_counter_ns() - started)
            body += checked(response)
        times.sort()
        return {
            "body_received": body,
            "p50_us": times[len(times) // 2] / 1e3,
            "p99_us": times[len(times) * 99 // 100] / 1e3,
        }

    def tasks(self, count: int) -> dict[str, Any]:
        """One AsyncSession and a hundred tasks."""
        return self.loop.run_until_complete(self._tasks(count))

    async def _tasks(self, count: int) -> dict[str, Any]:
        if self.tasks_session is None:
            self.tasks_session = AsyncSession(max_clients=AT_ONCE, **self.options)
        calls = iter(range(count))

        async def worker() -> int:
            return sum([checked(await self.tasks_session.get(self.url)) for _ in calls])

        return {"body_received": sum(await asyncio.gather(*[worker() for _ in range(AT_ONCE)]))}

    def threads_(self, count: int) -> dict[str, Any]:
        """One Session and a hundred threads; it keeps a handle and so a connection for each."""
        calls = iter(range(count))

        def worker(_: int) -> int:
            return sum([checked(self.session.get(self.url)) for _ in calls])

        return {"body_received": sum(self.threads.map(worker, range(AT_ONCE)))}

    def run(self, how: str, count: int) -> dict[str, Any]:
        call = {"single": self.single, "tasks": self.tasks, "threads": self.threads_}[how]
        started = time.perf_counter()
        answer = call(count)
        return {**answer, "requests": count, "seconds": time.perf_counter() - started}

    def close(self) -> None:
        if self.tasks_session is not None:
            self.loop.run_until_complete(self.tasks_session.close())
        self.loop.close()
        self.threads.shutdown()


def checked(response: Any) -> int:
    if response.status_code != 200 or response.http_version != CurlHttpVersion.V3:
        raise ValueError(f"status {response.status_code}, version {response.http_version}")
    return len(response.content)


def main() -> None:
    load = Load(sys.argv[1], sys.argv[2])
    load.single(1)
    libcurl = Curl().version().decode().split()[0]
    version = f"{importlib.metadata.version('curl_cffi')} ({libcurl})"
    print(json.dumps({"ready": True, "version": version}), flush=True)
    for line in sys.stdin:
        print(json.dumps(load.run(**json.loads(line))), flush=True)
    load.close()


if __name__ == "__main__":
    main()
