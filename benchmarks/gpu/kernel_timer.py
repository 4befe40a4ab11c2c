"""Times of single kernels, each with nothing of its inputs in the card's cache."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Any

import torch

_FLUSHED_BYTES = 512_000_000
"""Written between two runs: many times what the L2 cache holds, and for so long (0.1 ms and more) that the host has put
the next run into the queue before it is that run's turn."""
_WARM_UP = 3
_FEWEST, _MOST = 5, 200


class KernelTimer:
    """For one device. Without a GPU it measures only that everything runs: on the clock, twice."""

    def __init__(self, device: torch.device, seconds: float) -> None:
        self.device = device
        self._seconds = seconds
        self._flushed = torch.empty(_FLUSHED_BYTES if device.type == "cuda" else 0, dtype=torch.int8, device=device)

    def median_s(self, run: Callable[[], object]) -> float:
        """Of one run on the device, over as many as fit into the time, of a few at least."""
        if self.device.type != "cuda":
            return min(_wall_s(run), _wall_s(run))
        with torch.cuda.device(self.device):
            for _ in range(_WARM_UP):
                run()
            estimate = statistics.median(self._device_s(run, _FEWEST))
            number = max(_FEWEST, min(_MOST, int(self._seconds / max(estimate, 1e-6))))
            return statistics.median(self._device_s(run, number))

    def _device_s(self, run: Callable[[], object], number: int) -> list[float]:
        new_mark: Any = torch.cuda.Event
        marks = [(new_mark(enable_timing=True), new_mark(enable_timing=True)) for _ in range(number)]
        for before, after in marks:
            self._flushed.zero_()
            before.record()
            run()
            after.record()
        torch.cuda.synchronize()
        return [before.elapsed_time(after) / 1e3 for before, after in marks]


def _wall_s(run: Callable[[], object]) -> float:
    began = time.perf_counter()
    run()
    return time.perf_counter() - began
