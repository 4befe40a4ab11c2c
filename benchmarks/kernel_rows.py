"""Times of what is done to single rows between the products. Rows stay in the caches, so memory is no limit to them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import torch
from torch.nn.functional import rms_norm, silu

from benchmarks.kernel_bench import DTYPES, Bench, paged_inputs, random_cache
from benchmarks.kernel_records import KernelRun
from vfastml.text_engine.decoders.rope_table import RopeTable, rotate

_TIMES = 64
"""One after the other in a run, so that to call it costs little beside."""
_CONTEXT = 128
_EPSILON = 1e-5

Pair = tuple[Callable[[], object], Callable[[], object]]
"""Ours and torch's, each _TIMES times."""


def row_runs(bench: Bench, formats: Sequence[str], rows: Sequence[int]) -> Iterator[KernelRun]:
    """Ours compute in float32; torch's in the format, in which both write the cache."""
    makers = {"RMS norm": _norm, "RoPE and cache": _place, "SiLU x up": _activation}
    for name in formats:
        for kernel, make in makers.items():
            for number in rows:
                ours, theirs = make(bench, number, DTYPES[name])
                yield KernelRun(
                    family="rows",
                    kernel=kernel,
                    number_format=name,
                    threads=bench.threads,
                    rows=number,
                    seconds=bench.best(ours, _TIMES),
                    others={"torch": bench.best(theirs, _TIMES)},
                )


def _norm(bench: Bench, rows: int, dtype: torch.dtype) -> Pair:
    values, weight = torch.rand(rows, bench.shape.hidden), torch.rand(bench.shape.hidden)
    narrow, narrow_weight = values.to(dtype), weight.to(dtype)
    return (
        lambda: bench.single.rms_norm(values, weight, _EPSILON, _TIMES),
        lambda: [rms_norm(narrow, weight.shape, narrow_weight, _EPSILON) for _ in range(_TIMES)],
    )


def _place(bench: Bench, rows: int, dtype: torch.dtype) -> Pair:
    shape, inputs = bench.shape, paged_inputs(rows, 1, _CONTEXT)
    cache = random_cache(shape, _TIMES, inputs, dtype)
    heads = torch.rand(rows, shape.heads + 2 * shape.kv_heads, shape.head_dim)
    inv_freq = 1e4 ** -torch.arange(0, 1, 2 / shape.head_dim)
    angles = torch.outer(torch.arange(float(_CONTEXT)), inv_freq)
    own_angles = angles.cos(), angles.sin()
    cos, sin = RopeTable(inv_freq, 1.0, dtype, torch.device("cpu")).at(inputs.position_ids, _CONTEXT)
    narrow = heads.to(dtype)

    def theirs() -> None:
        for layer in range(_TIMES):
            turned = rotate(narrow[:, : -shape.kv_heads], cos, sin)
            cache.write(layer, inputs.slots, turned[:, shape.heads :], narrow[:, -shape.kv_heads :])

    return lambda: bench.single.rope_and_store(heads, cache, inputs, own_angles), theirs


def _activation(bench: Bench, rows: int, dtype: torch.dtype) -> Pair:
    width = -(-2 * bench.shape.intermediate // bench.kernels.panel) * bench.kernels.panel
    values = torch.rand(rows, width)
    gate, up = values.to(dtype).chunk(2, dim=1)
    return lambda: bench.single.silu_times(values, _TIMES), lambda: [silu(gate) * up for _ in range(_TIMES)]
