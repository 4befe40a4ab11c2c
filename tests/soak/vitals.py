"""What a process takes of its machine, and whether that grows."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

import psutil

MIB = 1 << 20


@dataclass(frozen=True)
class Vitals:
    """Of one process at one moment."""

    requests: int
    """Asked of the service until then."""
    rss_mib: float
    descriptors: int
    threads: int

    @classmethod
    def of(cls, pid: int, requests: int) -> Vitals:
        """As they are now. Raises psutil.NoSuchProcess when it has ended."""
        process = psutil.Process(pid)
        return cls(requests, process.memory_info().rss / MIB, process.num_fds(), process.num_threads())


def rss_slope(samples: Sequence[Vitals]) -> float:
    """MiB for 1,000 requests, of the straight line that fits best; 0 where too little was asked to tell."""
    requests = [sample.requests for sample in samples]
    if len(set(requests)) < 2:
        return 0.0
    return 1000 * statistics.linear_regression(requests, [sample.rss_mib for sample in samples]).slope
