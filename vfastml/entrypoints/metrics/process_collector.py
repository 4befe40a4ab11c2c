"""What the gateway's processes take of the machine, all together."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from prometheus_client import ProcessCollector
from prometheus_client.core import Metric
from prometheus_client.registry import Collector
from prometheus_client.samples import Sample

_OLDEST = "process_start_time_seconds"


class ProcessesCollector(Collector):
    """prometheus_client's own process metrics, of the processes that `pids` names; sums but for the start, which is
    that of the oldest."""

    def __init__(self, pids: Callable[[], Sequence[int]]) -> None:
        self._pids = pids

    def collect(self) -> Iterable[Metric]:
        families: dict[str, list[Metric]] = {}
        for pid in self._pids():
            for family in ProcessCollector(pid=lambda pid=pid: pid, registry=None).collect():  # type: ignore[misc]
                families.setdefault(family.name, []).append(family)
        return [_joined(of_processes) for of_processes in families.values()]


def _joined(families: list[Metric]) -> Metric:
    values = [sample.value for family in families for sample in family.samples]
    joined, sample = families[0], families[0].samples[0]
    value = min(values) if joined.name == _OLDEST else sum(values)
    joined.samples = [Sample(sample.name, sample.labels, value)]
    return joined
