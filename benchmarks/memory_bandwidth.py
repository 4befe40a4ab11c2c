"""How fast threads read memory: what bounds a decode step of one sequence, which reads every weight once."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from safetensors import safe_open

from benchmarks.kernel_bench import reading_speed
from vfastml.text_engine import cpu_kernels
from vfastml.text_engine.cpu_kernels import NoKernels
from vfastml.text_engine.cpu_kernels.single import SingleKernels

_BUFFER_BYTES = 1 << 29
"""Far more than any cache holds."""
_SECONDS = 1.0
"""With the kernels."""
_TRIES = 12
"""Without them."""
_BYTES = {"float32": 4, "bfloat16": 2, "float16": 2, "int8": 1}


def read_bandwidth(num_threads: int, buffer_bytes: int = _BUFFER_BYTES) -> float:
    """Bytes per second: the best of several times. Where there are no kernels for this machine, numpy reads, which may
    not reach what the machine can."""
    try:
        kernels = cpu_kernels.load("auto")
    except NoKernels:
        return _numpy_bandwidth(num_threads, buffer_bytes)
    return reading_speed(SingleKernels(kernels, num_threads), _SECONDS, buffer_bytes)


def _numpy_bandwidth(num_threads: int, buffer_bytes: int) -> float:
    parts = np.array_split(np.ones(buffer_bytes // 8), num_threads)
    with ThreadPoolExecutor(num_threads) as threads:
        return buffer_bytes / min(_seconds(threads, parts) for _ in range(_TRIES))


def _seconds(threads: ThreadPoolExecutor, parts: list[np.ndarray]) -> float:
    began = time.perf_counter()
    list(threads.map(np.sum, parts))
    return time.perf_counter() - began


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
