"""The products of a layer and of the vocabulary, as cuBLAS computes them: most of a step's time."""

from __future__ import annotations

from collections.abc import Iterator

import torch

from benchmarks.gpu.kernel_cases import KernelCase, KernelSizes

FAMILY = "products"


def gemm_cases(sizes: KernelSizes) -> Iterator[KernelCase]:
    """Each matrix with the rows of decode steps, and with those of a prefill."""
    for kernel, (outputs, inputs, per_step) in matrices(sizes).items():
        weight = sizes.random(outputs, inputs).t()
        for rows in [*sizes.rows, *([sizes.prefill_rows] if per_step > 1 else [])]:
            yield _case(sizes, kernel, weight, rows, per_step if rows in sizes.rows else 0)


def matrices(sizes: KernelSizes) -> dict[str, tuple[int, int, int]]:
    """(outputs, inputs, how often in a step), queries, keys and values in one, gate and up in one."""
    heads = sizes.shape.heads * sizes.shape.head_dim
    return {
        "qkv": (heads + 2 * sizes.shape.kv_heads * sizes.shape.head_dim, sizes.shape.hidden, sizes.layers),
        "o": (sizes.shape.hidden, heads, sizes.layers),
        "gate_up": (2 * sizes.shape.intermediate, sizes.shape.hidden, sizes.layers),
        "down": (sizes.shape.hidden, sizes.shape.intermediate, sizes.layers),
        "vocabulary": (sizes.shape.vocab, sizes.shape.hidden, 1),
    }


def peak_operations(sizes: KernelSizes) -> tuple[KernelCase, float]:
    """A product that only computing bounds, and its operations."""
    edge = 8192 if sizes.device.type == "cuda" else 64
    left, right = sizes.random(edge, edge), sizes.random(edge, edge)
    return KernelCase(FAMILY, "square", edge, lambda: torch.mm(left, right)), 2.0 * edge**3


def _case(sizes: KernelSizes, kernel: str, weight: torch.Tensor, rows: int, per_step: int) -> KernelCase:
    x = sizes.random(rows, weight.shape[0])
    output = torch.empty(rows, weight.shape[1], dtype=x.dtype, device=x.device)
    return KernelCase(
        family=FAMILY,
        kernel=kernel,
        rows=rows,
        run=lambda: torch.mm(x, weight, out=output),
        num_bytes=weight.nbytes + x.nbytes + output.nbytes,
        operations=2.0 * rows * weight.numel(),
        per_step=per_step,
    )
