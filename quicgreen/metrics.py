"""The engines' counters for Prometheus (the extra `metrics`: prometheus-client).

    from prometheus_client import REGISTRY
    REGISTRY.register(quicgreen.metrics.Collector())

They are `quicgreen_datagrams_sent_total` and its kin, as `quicgreen.stats.COUNTERS` names them, and the
gauges `quicgreen_connections` and `quicgreen_streams`; each with the label `engine`, since every hub has one.
They are read when somebody scrapes, from whichever thread, and cost nothing before.
"""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client import Metric
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector as BaseCollector

from . import __version__, _engine, hub
from .stats import COUNTERS, GAUGES


class Collector(BaseCollector):
    """Collects, when it is asked, from all engines of this process. Of prefork workers each has its own.

    Args:
        prefix: what names begin with.
    """

    def __init__(self, prefix: str = "quicgreen") -> None:
        self._prefix = prefix

    def describe(self) -> Iterator[Metric]:
        """The same metrics without values: a registry asks, to find names that are taken."""
        return self._families()

    def collect(self) -> Iterator[Metric]:
        """What the counters say now."""
        snapshots = {str(n): engine.counters() for n, engine in hub.engines().items()}
        for name, family in zip(COUNTERS, self._families(), strict=False):
            for number, counters in snapshots.items():
                family.add_metric([number], counters[name])
            yield family
        about = GaugeMetricFamily(f"{self._prefix}_build", "versions", labels=["version", "libraries"])
        about.add_metric([__version__, _engine.build_info()], 1)
        yield about

    def _families(self) -> Iterator[CounterMetricFamily | GaugeMetricFamily]:
        for name, text in COUNTERS.items():
            kind = GaugeMetricFamily if name in GAUGES else CounterMetricFamily
            yield kind(f"{self._prefix}_{name}", text, labels=["engine"])
