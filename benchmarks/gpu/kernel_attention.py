"""Attention over the paged cache: our kernels beside the backend in torch, on the same cache."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import torch

from benchmarks.gpu.kernel_cases import KernelCase, KernelSizes
from benchmarks.kernel_bench import BLOCK_SIZE, paged_inputs
from vfastml.text_engine.attention.interface import AttentionOptions
from vfastml.text_engine.attention.sdpa import SdpaAttention
from vfastml.text_engine.attention.triton_paged import TritonAttention
from vfastml.text_engine.batch_inputs import BatchInputs
from vfastml.text_engine.kv_cache import KVCache, KVShape

FAMILY = "attention"
_LONG = 16
"""Times the context: one sequence of it is split between programs."""


def attention_cases(sizes: KernelSizes) -> Iterator[KernelCase]:
    """Decode steps; one sequence with a long context; a prompt; and a piece of one, behind what came before it."""
    for rows in sizes.rows:
        yield _case(sizes, f"decode at {sizes.context}", rows, 1, sizes.context, sizes.layers)
    yield _case(sizes, f"decode at {_LONG * sizes.context}", 1, 1, _LONG * sizes.context, 0)
    prompt = min(sizes.prefill_rows, 2 * sizes.context)
    yield _case(sizes, "prompt", 1, prompt, prompt, 0)
    yield _case(sizes, f"{prompt // 4} tokens behind {2 * prompt - prompt // 4}", 1, prompt // 4, 2 * prompt, 0)


def _case(sizes: KernelSizes, kernel: str, rows: int, tokens: int, context: int, per_step: int) -> KernelCase:
    inputs = on_device(paged_inputs(rows, tokens, context), sizes.device)
    kind = KVShape(sizes.shape.kv_heads, sizes.shape.head_dim, sizes.shape.head_dim)
    cache = KVCache([kind], len(inputs.block_tables), BLOCK_SIZE, sizes.dtype, sizes.device)
    for tensor in (cache.keys[0], cache.values[0]):
        tensor.uniform_(-1, 1)
    query = sizes.random(rows * tokens, sizes.shape.heads, sizes.shape.head_dim)
    options = AttentionOptions(sizes.shape.head_dim**-0.5)
    ours, reference = TritonAttention(cache), SdpaAttention(cache)
    own_meta, meta = ours.prepare(inputs), reference.prepare(inputs)
    seen = rows * tokens * (context - (tokens - 1) / 2)
    return KernelCase(
        family=FAMILY,
        kernel=kernel,
        rows=rows * tokens,
        run=lambda: ours.attend(0, query, own_meta, options),
        others={"torch, sdpa": lambda: reference.attend(0, query, meta, options)},
        num_bytes=2 * rows * context * sizes.shape.kv_heads * sizes.shape.head_dim * sizes.dtype.itemsize
        + 2 * query.nbytes,
        operations=4.0 * seen * sizes.shape.heads * sizes.shape.head_dim,
        per_step=per_step,
    )


def on_device(inputs: BatchInputs, device: torch.device) -> BatchInputs:
    """The same step, its tensors there."""
    names = ("input_ids", "position_ids", "slots", "logits_index")
    return replace(inputs, **{name: getattr(inputs, name).to(device) for name in names})
