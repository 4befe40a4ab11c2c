"""How fast threads read memory: what bounds a decode step of one sequence, which reads every weight once."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path

import numpy as np
from safetensors import safe_open

from vfastml.text_engine import cpu_kernels
from vfastml.text_engine.cpu_kernels import NoKernels
from vfastml.text_engine.cpu_kernels.packing import Arena
from vfastml.text_engine.cpu_kernels.single import SingleKernels

_BUFFER_BYTES = 1 << 28
"""Far more than any cache holds."""
_TIMES = 9
"""That it is read for one figure."""
_TURNS = 8
_BYTES = {"float32": 4, "bfloat16": 2, "float16": 2, "int8": 1}


class MemoryReader:
    """Threads that do nothing but read a buffer. Where there are no kernels for this machine, numpy reads, which may
    not reach what the machine can."""

    def __init__(self, num_threads: int, buffer_bytes: int | None = None) -> None:
        buffer_bytes = buffer_bytes or _BUFFER_BYTES
        try:
            single = SingleKernels(cpu_kernels.load("auto"), num_threads)
        except NoKernels:
            parts = np.array_split(np.ones(buffer_bytes // 8), num_threads)
            threads = ThreadPoolExecutor(num_threads)
            self._read: Callable[[], object] = lambda: list(threads.map(np.sum, parts))
        else:
            buffer = Arena(buffer_bytes).take(buffer_bytes).fill_(1)
            self._read = lambda: single.read(buffer)
        self._num_bytes = buffer_bytes

    def bytes_per_s(self) -> float:
        """Now: the median of a few times."""
        return self._num_bytes / statistics.median(self._seconds() for _ in range(_TIMES))

    def _seconds(self) -> float:
        began = time.perf_counter()
        self._read()
        return time.perf_counter() - began


class WeightReading:
    """What decode steps of one sequence read, beside what the same threads read that do nothing else."""

    def __init__(self, bytes_per_step: int, num_threads: int) -> None:
        self._bytes_per_step = bytes_per_step
        self._reader = MemoryReader(num_threads)
        self._threads = f"{num_threads} thread{'s' if num_threads > 1 else ''}"

    def figures(self, decode_step_s: Callable[[], float]) -> dict[str, float]:
        """Medians by title. Steps and reading take turns of some tenths of a second: on a virtual machine the cores are
        moved between places that reach memory at different speeds, so a limit from another moment says nothing."""
        limits = [self._reader.bytes_per_s()]
        speeds = []
        for _ in range(_TURNS):
            speeds.append(self._bytes_per_step / decode_step_s())
            limits.append(self._reader.bytes_per_s())
        shares = [2 * speed / sum(around) for speed, around in zip(speeds, pairwise(limits), strict=True)]
        return {
            "weights read, GB/s": statistics.median(speeds) / 1e9,
            f"memory, GB/s ({self._threads})": statistics.median(limits) / 1e9,
            "of bandwidth, %": 100 * statistics.median(shares),
        }


def weight_bytes(folder: Path, kind: str) -> int:
    """What a decode step reads of the model in `folder`, its matrices being of this kind (`int8`, or a dtype): all but
    an embedding that is not the output layer too, of which it takes one row. Scales of int8 are left out."""
    sizes: dict[str, int] = {}
    for path in folder.glob("*.safetensors"):
        with safe_open(path, framework="np") as file:
            sizes.update((name, int(np.prod(file.get_slice(name).get_shape()))) for name in file.keys())  # noqa: SIM118
    if any(name.startswith("lm_head.") for name in sizes):
        sizes = {name: size for name, size in sizes.items() if "embed_tokens" not in name}
    return sum(sizes.values()) * _BYTES[kind]
