"""What the measurements of single kernels share: shapes, threads, the machine's limits, and how a time is taken."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch

from benchmarks.kernel_records import Limits
from vfastml.text_engine.batch_inputs import BatchInputs
from vfastml.text_engine.cpu_kernels import Kernels
from vfastml.text_engine.cpu_kernels.packing import Arena
from vfastml.text_engine.cpu_kernels.single import MOST_LAYERS, SingleKernels
from vfastml.text_engine.cpu_kernels.structs import BF16, F32, I8
from vfastml.text_engine.kv_cache import KVCache, KVShape

FORMATS = {"float32": F32, "bfloat16": BF16, "int8": I8}
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
"""Of a KV cache, and of torch's kernels."""
BLOCK_SIZE = 16
_FEWEST_RUNS = 3
_MOST_OPERATIONS = 8e9
"""Of one run: more layers only make it longer once computing takes most of the time."""
_PEAK_ROUNDS = 20_000
_READING = 4
"""All shares rest on this one measurement, and others disturb it most: it takes so many times as long."""


@dataclass(frozen=True)
class ModelShape:
    """The numbers of a Llama-like model that its kernels depend on."""

    hidden: int
    intermediate: int
    heads: int
    kv_heads: int
    head_dim: int
    vocab: int


@dataclass(frozen=True)
class Bench:
    """One number of threads, for torch too."""

    single: SingleKernels
    shape: ModelShape
    limits: Limits
    seconds: float
    """That runs of one kernel are repeated for."""
    memory: int
    """Bytes that weights, or keys and values, are spread over."""

    @property
    def kernels(self) -> Kernels:
        """That are measured."""
        return self.single.kernels

    @property
    def threads(self) -> int:
        """Of ours and of torch."""
        return self.single.num_threads

    def num_layers(self, num_bytes: float, operations: float) -> int:
        """How many a run goes through, so that none is in a cache from the run before; fewer where computing is what
        takes the time."""
        return max(1, min(MOST_LAYERS, int(self.memory // num_bytes), int(_MOST_OPERATIONS // operations)))

    def best(self, run: Callable[[], object], layers: int) -> float:
        """Seconds for each layer of a run: the least of all."""
        return best_seconds(run, self.seconds) / layers


def measure_limits(single: SingleKernels, seconds: float, memory: int) -> Limits:
    """With the threads of `single`."""
    peaks = {}
    for name, number_format in FORMATS.items():
        operations = single.compute(number_format, _PEAK_ROUNDS)
        peaks[name] = operations / best_seconds(lambda: single.compute(number_format, _PEAK_ROUNDS), seconds)  # noqa: B023
    bytes_per_s = reading_speed(single, _READING * seconds, memory)
    return Limits(threads=single.num_threads, bytes_per_s=bytes_per_s, operations_per_s=peaks)


def reading_speed(single: SingleKernels, seconds: float, memory: int) -> float:
    """Bytes per second with the threads of `single`, which do nothing but read them: the best of all runs."""
    data = Arena(memory).take(memory // 64 * 64).fill_(1)
    return data.nbytes / best_seconds(lambda: single.read(data), seconds)


def best_seconds(run: Callable[[], object], seconds: float) -> float:
    """The shortest of all runs in that time, of a few at least."""
    run()
    times: list[float] = []
    while len(times) < _FEWEST_RUNS or sum(times) < seconds:
        began = time.perf_counter()
        run()
        times.append(time.perf_counter() - began)
    return min(times)


def paged_inputs(rows: int, tokens: int, context: int) -> BatchInputs:
    """A step of rows that each compute their last `tokens` of `context`, in blocks that lie apart."""
    blocks = -(-context // BLOCK_SIZE)
    tables = np.random.default_rng(0).permutation(rows * blocks).astype(np.int32).reshape(rows, blocks)
    positions = np.arange(context - tokens, context)
    slots = tables[:, positions // BLOCK_SIZE].astype(np.int64) * BLOCK_SIZE + positions % BLOCK_SIZE
    starts = np.arange(rows + 1, dtype=np.int32)
    return BatchInputs(
        input_ids=torch.zeros(rows * tokens, dtype=torch.int64),
        position_ids=torch.from_numpy(np.tile(positions, rows)),
        slots=torch.from_numpy(slots.reshape(-1)),
        logits_index=torch.empty(0, dtype=torch.int64),
        query_starts=starts * np.int32(tokens),
        context_lens=np.full(rows, context, dtype=np.int32),
        block_tables=tables.reshape(-1),
        block_starts=starts * np.int32(blocks),
    )


def random_cache(shape: ModelShape, layers: int, inputs: BatchInputs, dtype: torch.dtype) -> KVCache:
    """With room for the step."""
    kind = KVShape(shape.kv_heads, shape.head_dim, shape.head_dim)
    cache = KVCache([kind] * layers, len(inputs.block_tables), BLOCK_SIZE, dtype, torch.device("cpu"))
    for tensor in (*cache.keys, *cache.values):
        tensor.uniform_(-1, 1)
    return cache
