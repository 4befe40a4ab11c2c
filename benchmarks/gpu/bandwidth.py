"""How fast this card moves memory, measured in the same run as all that is compared with it."""

from __future__ import annotations

import statistics
import sys
from collections.abc import Callable

import torch

from benchmarks.gpu.device_clock import seconds_each
from benchmarks.gpu.measurements import Measurement, MeasurementFile
from benchmarks.gpu.part_program import NotHereError, part_program
from benchmarks.gpu.tasks import BandwidthTask
from benchmarks.gpu.titles import COPY, MEMORY, READ

_TIMES = 10
_WARM_UP = 3


def measure(task: BandwidthTask, found: MeasurementFile) -> None:
    """Medians of a copy within the device and of a sum."""
    device = torch.device(task.device)
    if device.type == "cuda" and not torch.cuda.is_available():
        raise NotHereError(f"torch {torch.__version__} sees no GPU; without one there is --dry")
    copied, read = copy_bytes_per_s(device, task.num_bytes), read_bytes_per_s(device, task.num_bytes)
    figures = {COPY: copied / 1e9, READ: read / 1e9}
    settings = {"GB": task.num_bytes / 1e9}
    found.add(Measurement(part=task.part, workload=MEMORY, settings=settings, figures=figures, notes=_about(device)))


def copy_bytes_per_s(device: torch.device, num_bytes: int) -> float:
    """From one half of the buffer to the other; read and written bytes both count."""
    source, target = torch.rand(2, num_bytes // 8, device=device).unbind()
    return 2 * source.nbytes / _median_s(lambda: target.copy_(source), device)


def read_bytes_per_s(device: torch.device, num_bytes: int) -> float:
    """As a sum reads it: nothing but the result is written."""
    values = torch.rand(num_bytes // 4, device=device)
    return values.nbytes / _median_s(values.sum, device)


def _median_s(run: Callable[[], object], device: torch.device) -> float:
    return statistics.median(seconds_each([run] * (_WARM_UP + _TIMES), device)[_WARM_UP:])


def _about(device: torch.device) -> list[str]:
    if device.type != "cuda":
        return ["not a GPU: the figures of this run mean nothing"]
    facts = torch.cuda.get_device_properties(device)
    return [
        f"{facts.name}, {facts.total_memory / 1e9:.0f} GB, {facts.multi_processor_count} multiprocessors, "
        f"capability {facts.major}.{facts.minor}; CUDA {torch.version.cuda}"
    ]


if __name__ == "__main__":
    sys.exit(part_program(measure, BandwidthTask))
