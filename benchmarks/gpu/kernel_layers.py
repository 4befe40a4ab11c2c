"""What is done between the products of a layer: our kernels beside the same in torch."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

import torch

from benchmarks.gpu.kernel_attention import on_device
from benchmarks.gpu.kernel_cases import KernelCase, KernelSizes
from benchmarks.kernel_bench import BLOCK_SIZE, paged_inputs
from vfastml.text_engine.decoders.rope_table import rope_angles
from vfastml.text_engine.kv_cache import KVCache, KVShape
from vfastml.text_engine.triton_kernels.rms_norm import rms_norm, rms_norm_reference
from vfastml.text_engine.triton_kernels.rope_write import rope_write, rope_write_reference
from vfastml.text_engine.triton_kernels.silu_mul import silu_mul, silu_mul_reference

FAMILY = "rows"
_EPSILON = 1e-5
_REFERENCE = "torch"


def layer_cases(sizes: KernelSizes) -> Iterator[KernelCase]:
    """For decode steps and for a prefill."""
    for make in (_rope_write, _silu_mul, _rms_norm):
        yield from (make(sizes, rows) for rows in sizes.rows)
        yield replace(make(sizes, sizes.prefill_rows), per_step=0)


def _rms_norm(sizes: KernelSizes, rows: int) -> KernelCase:
    x, weight = sizes.random(rows, sizes.shape.hidden), sizes.random(sizes.shape.hidden)
    return KernelCase(
        family=FAMILY,
        kernel="RMS norm",
        rows=rows,
        run=lambda: rms_norm(x, weight, _EPSILON),
        others={_REFERENCE: lambda: rms_norm_reference(x, weight, _EPSILON)},
        num_bytes=2 * x.nbytes + weight.nbytes,
        per_step=1,
    )


def _silu_mul(sizes: KernelSizes, rows: int) -> KernelCase:
    x, gate_up = sizes.random(rows, sizes.shape.hidden), sizes.random(rows, 2 * sizes.shape.intermediate)
    return KernelCase(
        family=FAMILY,
        kernel="1/rms, SiLU x up",
        rows=rows,
        run=lambda: silu_mul(gate_up, x, eps=_EPSILON, dtype=sizes.dtype),
        others={_REFERENCE: lambda: silu_mul_reference(gate_up, x, eps=_EPSILON, dtype=sizes.dtype)},
        num_bytes=x.nbytes + 1.5 * gate_up.nbytes,
        per_step=sizes.layers,
    )


def _rope_write(sizes: KernelSizes, rows: int) -> KernelCase:
    decodes = rows in sizes.rows
    inputs = on_device(paged_inputs(rows, 1, sizes.context) if decodes else paged_inputs(1, rows, rows), sizes.device)
    kind = KVShape(sizes.shape.kv_heads, sizes.shape.head_dim, sizes.shape.head_dim)
    cache = KVCache([kind], len(inputs.block_tables), BLOCK_SIZE, sizes.dtype, sizes.device)
    x = sizes.random(rows, sizes.shape.hidden)
    qkv = sizes.random(rows, (sizes.shape.heads + 2 * sizes.shape.kv_heads) * sizes.shape.head_dim)
    inv_freq = 1e4 ** -torch.arange(0, 1, 2 / sizes.shape.head_dim)
    angles = rope_angles(inv_freq, 1.0, max(rows, sizes.context), sizes.device)

    def run(kernel: Callable[..., torch.Tensor]) -> Callable[[], object]:
        return lambda: kernel(
            qkv,
            x,
            position_ids=inputs.position_ids,
            slots=inputs.slots,
            angles=angles,
            keys=cache.keys[0],
            values=cache.values[0],
            eps=_EPSILON,
        )

    return KernelCase(
        family=FAMILY,
        kernel="1/rms, RoPE, KV write",
        rows=rows,
        run=run(rope_write),
        others={_REFERENCE: run(rope_write_reference)},
        num_bytes=x.nbytes + 2 * qkv.nbytes,
        per_step=sizes.layers,
    )
