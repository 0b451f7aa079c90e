"""The counters as Prometheus scrapes them: from our own server, and from prometheus_client's thread."""

from __future__ import annotations

import threading
import urllib.request

import gevent
import pytest
from prometheus_client import CollectorRegistry, generate_latest, start_http_server
from prometheus_client.parser import text_string_to_metric_families
from support import check_python, connect, counters, hello, serving, wait_until

import quicgreen
from quicgreen import hub
from quicgreen.metrics import Collector
from quicgreen.stats import COUNTERS, GAUGES


def samples(text: str) -> dict[str, float]:
    """Of this hub's engine, by name."""
    mine = str(hub.current().number)
    found = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            if sample.labels.get("engine", mine) == mine:
                found[sample.name] = sample.value
    return found


@pytest.fixture
def registry() -> CollectorRegistry:
    registry = CollectorRegistry()
    registry.register(Collector())
    return registry


def test_a_scrape_over_http3(registry: CollectorRegistry) -> None:
    def handle(request: quicgreen.Request) -> None:
        request.respond(200, {"content-type": "text/plain; version=0.0.4"}, generate_latest(registry))

    assert wait_until(lambda: counters()["connections"] == 0, 20)  # other tests' that end
    with serving(handle) as server, connect(server) as connection:
        before = samples(connection.get("/metrics").text)
        for _ in range(10):
            connection.get("/metrics")
        after = samples(connection.get("/metrics").text)
    assert after["quicgreen_requests_received_total"] - before["quicgreen_requests_received_total"] == 11
    assert after["quicgreen_connections"] == 2  # both ends are here
    assert after["quicgreen_datagrams_sent_total"] > before["quicgreen_datagrams_sent_total"]
    assert after["quicgreen_build"] == 1


def test_every_counter_is_there_and_described(registry: CollectorRegistry) -> None:
    text = generate_latest(registry).decode()
    families = {f.name: f for f in text_string_to_metric_families(text)}
    assert families.keys() == {f"quicgreen_{name}" for name in [*COUNTERS, "build"]}
    for name, meaning in COUNTERS.items():
        family = families[f"quicgreen_{name}"]
        assert (family.type, family.documentation) == ("gauge" if name in GAUGES else "counter", meaning)


def test_a_scrape_by_another_thread_while_the_hub_is_busy(registry: CollectorRegistry) -> None:
    httpd, thread = start_http_server(0, "127.0.0.1", registry)
    url = f"http://127.0.0.1:{httpd.server_port}/metrics"

    def scrape() -> str:
        with urllib.request.urlopen(url, timeout=20) as response:
            return response.read().decode()

    try:
        with serving(hello) as server, connect(server) as connection:
            scraping = [gevent.get_hub().threadpool.spawn(scrape) for _ in range(5)]
            while not all(g.ready() for g in scraping):
                connection.get("/")
            last = samples(gevent.get_hub().threadpool.apply(scrape))
            assert last["quicgreen_requests_sent_total"] == counters()["requests_sent"]
    finally:
        httpd.shutdown()
        httpd.server_close()
        thread.join(20)


def test_engines_of_threads_are_told_apart(registry: CollectorRegistry) -> None:
    hub.current()
    seen: list[int] = []
    go, done = threading.Event(), threading.Event()

    def work() -> None:
        seen.append(hub.current().number)
        go.set()
        done.wait(20)
        gevent.get_hub().destroy(destroy_loop=True)

    thread = threading.Thread(target=work)
    thread.start()
    go.wait(20)
    try:
        text = generate_latest(registry).decode()
    finally:
        done.set()
        thread.join(20)
    for number in (hub.current().number, *seen):
        assert f'quicgreen_drains_total{{engine="{number}"}}' in text


def test_a_prefix_and_two_of_one_name() -> None:
    registry = CollectorRegistry()
    registry.register(Collector("edge"))
    assert b"edge_drains_total" in generate_latest(registry)
    with pytest.raises(ValueError, match="Duplicated"):
        registry.register(Collector("edge"))


def test_before_anything_was_started_there_is_nothing_to_count() -> None:
    check_python(
        """
        from prometheus_client import CollectorRegistry, generate_latest
        from quicgreen.metrics import Collector
        registry = CollectorRegistry()
        registry.register(Collector())
        assert b"engine=" not in generate_latest(registry)
        import os, quicgreen
        from support import connect, hello, serving
        with serving(hello) as server, connect(server) as connection:
            connection.get("/")
        assert b'quicgreen_requests_sent_total{engine="1"} 1.0' in generate_latest(registry)
        if os.fork() == 0:
            os._exit(b"engine=" in generate_latest(registry))
        assert os.wait()[1] == 0
        """
    )
