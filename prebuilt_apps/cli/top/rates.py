"""How counters grow: from two snapshots to a step, from steps to rates over the last seconds."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from prebuilt_apps.cli.top.load_page import GROWING, LoadPage, ServerPage
from prebuilt_apps.cli.top.scrape import Series, Values

_COUNTERS = ("_total", "_bucket", "_sum", "_count")


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A service at one moment."""

    at: float
    """Seconds, on one monotonic clock."""
    unix_s: float
    """The same moment, as clocks tell it."""
    values: Values
    load: LoadPage


@dataclass(frozen=True, slots=True)
class Step:
    """What happened between two snapshots. Only what grew is in it."""

    began: float
    ended: float
    increases: dict[str, Values]
    """By the names of the series: a window is asked for few of many."""


def step_between(before: Snapshot, after: Snapshot) -> Step:
    """The counters of `/metrics` by their names, those of `/load` as `load:generated_tokens` and so on, with the label
    `endpoint`."""
    increases = {**_counted(before.values, after.values), **_counted_by_servers(before.load, after.load)}
    return Step(before.at, after.at, _by_name(increases))


class Window:
    """The last `span_s` seconds of a service, or its last step if that is longer. `last` is the newest snapshot, None
    before there is one."""

    def __init__(self, span_s: float) -> None:
        self.last: Snapshot | None = None
        self._span_s = span_s
        self._steps: deque[Step] = deque()

    def add(self, snapshot: Snapshot) -> None:
        """Takes the next one, and forgets what is too old."""
        if self.last is not None:
            self._steps.append(step_between(self.last, snapshot))
        self.last = snapshot
        while len(self._steps) > 1 and self._steps[0].began < snapshot.at - self._span_s:
            self._steps.popleft()

    def seconds(self, last_s: float = math.inf) -> float:
        """How long the steps took that ended within the last `last_s` seconds; 0: nothing to compare yet."""
        return sum(step.ended - step.began for step in self._recent(last_s))

    def increase(self, name: str, *, last_s: float = math.inf, **labels: str) -> float:
        """Over all series of that name that have these labels."""
        return sum(value for series, value in self._grown(name, last_s) if _has(series, labels))

    def per_second(self, name: str, *, last_s: float = math.inf, **labels: str) -> float | None:
        """None: nothing to compare yet."""
        seconds = self.seconds(last_s)
        return self.increase(name, last_s=last_s, **labels) / seconds if seconds else None

    def increases_by(self, label: str, name: str, *, last_s: float = math.inf) -> dict[str, float]:
        """For each value of a label."""
        return _sums((series.label(label), value) for series, value in self._grown(name, last_s))

    def _grown(self, name: str, last_s: float) -> Iterator[tuple[Series, float]]:
        for step in self._recent(last_s):
            yield from step.increases.get(name, {}).items()

    def _recent(self, last_s: float) -> Iterator[Step]:
        return (step for step in self._steps if self.last is not None and step.ended > self.last.at - last_s)


def _by_name(increases: Values) -> dict[str, Values]:
    named: dict[str, Values] = {}
    for series, value in increases.items():
        if value > 0:
            named.setdefault(series.name, {})[series] = value
    return named


def _counted(before: Values, after: Values) -> Values:
    return {series: _growth(before.get(series), value) for series, value in after.items() if _is_counter(series)}


def _growth(before: float | None, after: float) -> float:
    # A new series began at 0, and one that fell began anew at 0, in another process.
    return after if before is None or after < before else after - before


def _is_counter(series: Series) -> bool:
    return series.name.endswith(_COUNTERS)


def _counted_by_servers(before: LoadPage, after: LoadPage) -> Values:
    known = {server.endpoint: server for server in before.servers}
    pairs = [(known[server.endpoint], server) for server in after.servers if server.endpoint in known]
    return dict(item for then, now in pairs if now.goes_on(then) for item in _counted_by_server(then, now))


def _counted_by_server(before: ServerPage, after: ServerPage) -> Iterator[tuple[Series, float]]:
    for name in GROWING:
        yield Series.of(f"load:{name}", endpoint=after.endpoint), getattr(after.load, name) - getattr(before.load, name)


def _has(series: Series, labels: dict[str, str]) -> bool:
    return all(series.label(name) == value for name, value in labels.items())


def _sums(pairs: Iterable[tuple[str | None, float]]) -> dict[str, float]:
    sums: dict[str, float] = {}
    for name, value in pairs:
        if name is not None:
            sums[name] = sums.get(name, 0.0) + value
    return sums
