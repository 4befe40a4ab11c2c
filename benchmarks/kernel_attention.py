"""Times of attention over the paged cache, beside the backend in torch on the same cache."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch

from benchmarks.kernel_bench import DTYPES, Bench, paged_inputs, random_cache
from benchmarks.kernel_records import KernelRun
from vfastml.text_engine.attention.interface import AttentionOptions
from vfastml.text_engine.attention.sdpa import SdpaAttention


def attention_runs(
    bench: Bench, formats: Sequence[str], rows: Sequence[int], contexts: Sequence[int], prompts: Sequence[int]
) -> Iterator[KernelRun]:
    """Decode steps of so many rows, all at one length, and one prompt of each length, whose tokens are its rows."""
    for name in formats:
        for context in contexts:
            for number in rows:
                yield _run(bench, name, f"decode at {context}", number, 1, context)
        for length in prompts:
            yield _run(bench, name, "prompt", 1, length, length)


def _run(bench: Bench, name: str, kernel: str, rows: int, tokens: int, context: int) -> KernelRun:
    shape, dtype = bench.shape, DTYPES[name]
    num_bytes = 2 * rows * context * shape.kv_heads * shape.head_dim * dtype.itemsize
    seen = rows * tokens * (context - (tokens - 1) / 2)
    operations = 4.0 * seen * shape.heads * shape.head_dim
    layers = bench.num_layers(num_bytes, operations)
    inputs = paged_inputs(rows, tokens, context)
    cache = random_cache(shape, layers, inputs, dtype)
    query = torch.empty(rows * tokens, shape.heads, shape.head_dim).uniform_(-1, 1)
    key = torch.empty(rows * tokens, shape.kv_heads, shape.head_dim, dtype=dtype).uniform_(-1, 1)
    options = AttentionOptions(shape.head_dim**-0.5)
    backend = SdpaAttention(cache)
    meta, narrow = backend.prepare(inputs), query.to(dtype)
    return KernelRun(
        family="attention",
        kernel=kernel,
        number_format=name,
        threads=bench.threads,
        rows=rows * tokens,
        seconds=bench.best(lambda: bench.single.attend(query, cache, inputs, options.scaling), layers),
        others={
            "torch, sdpa": bench.best(
                lambda: [backend.forward(layer, narrow, key, key, meta, options) for layer in range(layers)], layers
            )
        },
        num_bytes=num_bytes,
        operations=operations,
        least_s=bench.limits.seconds(num_bytes, operations, name),
    )
