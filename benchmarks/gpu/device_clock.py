"""How long work takes on a device: by CUDA's events, on a CPU by the clock."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

import torch


def synchronize(device: torch.device) -> None:
    """Waits until all work that was given to the device is done."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def seconds_each(runs: Sequence[Callable[[], object]], device: torch.device) -> list[float]:
    """Of each, one after the other. On a GPU events lie between them in the queue, so the host's work is hidden behind
    that of the run before, unless a run is shorter than its launch."""
    if device.type != "cuda":
        return [_wall_s(run) for run in runs]
    with torch.cuda.device(device):
        new_mark: Any = torch.cuda.Event
        marks = [new_mark(enable_timing=True) for _ in range(len(runs) + 1)]
        marks[0].record()
        for mark, run in zip(marks[1:], runs, strict=True):
            run()
            mark.record()
        torch.cuda.synchronize()
        return [before.elapsed_time(after) / 1e3 for before, after in pairwise(marks)]


def _wall_s(run: Callable[[], object]) -> float:
    began = time.perf_counter()
    run()
    return time.perf_counter() - began
