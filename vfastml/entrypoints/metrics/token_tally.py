"""Deltas come by the thousand: what is measured of them is summed up, and written down together."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence

from prometheus_client import Counter, Histogram

_SETTLED_EVERY_S = 1.0


class SummedHistogram(Histogram):
    """Takes many observations at once, which the library has no call for, and one in half of its time."""

    def observe(self, amount: float, exemplar: dict[str, str] | None = None) -> None:
        """One; an exemplar is not kept."""
        self._buckets[bisect_left(self._upper_bounds, amount)].inc(1)
        self._sum.inc(amount)

    def add(self, counts: Sequence[int], total: float) -> None:
        """`counts` are those of the buckets, the last one that of all beyond; `total` is the sum of what they count."""
        for bucket, count in zip(self._buckets, counts, strict=True):
            if count:
                bucket.inc(count)
        self._sum.inc(total)


class TokenTally:
    """Of the tokens of one series. What it has is in no scrape until it is settled, which is due after a second."""

    __slots__ = ("_bounds", "_counts", "_intervals", "_tokens", "_total_s", "due_s", "num_tokens")

    def __init__(self, intervals: SummedHistogram, tokens: Counter, bounds: Sequence[float]) -> None:
        self._intervals = intervals
        self._tokens = tokens
        self._bounds = bounds
        self.due_s = 0.0
        """When it is to be settled at the latest, on the caller's clock."""
        self.num_tokens = 0
        """That have come since."""
        self._clear()

    def add_interval(self, seconds: float) -> None:
        """Between two tokens."""
        self._counts[bisect_left(self._bounds, seconds)] += 1
        self._total_s += seconds

    def settle(self, now_s: float) -> None:
        """Write down what has come together."""
        self.due_s = now_s + _SETTLED_EVERY_S
        if any(self._counts):
            self._intervals.add(self._counts, self._total_s)
        self._tokens.inc(self.num_tokens)
        self._clear()

    def _clear(self) -> None:
        self._counts = [0] * (len(self._bounds) + 1)
        self._total_s = 0.0
        self.num_tokens = 0
