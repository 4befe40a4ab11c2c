"""Products of a few rows by our own kernel, beside cuBLAS's: the best of its tilings, as an engine finds it."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import torch

from benchmarks.gpu.kernel_cases import KernelCase, KernelSizes
from benchmarks.gpu.kernel_gemms import matrices
from vfastml.text_engine.triton_kernels.skinny_product import MOST_ROWS, TILINGS, skinny_product

FAMILY = "skinny products"


def skinny_cases(sizes: KernelSizes) -> Iterator[KernelCase]:
    """Each matrix of a layer, with as many rows as the kernel takes."""
    for kernel, (outputs, inputs, per_step) in matrices(sizes).items():
        weight = sizes.random(outputs, inputs)
        for rows in (rows for rows in sizes.rows if rows <= MOST_ROWS):
            yield _case(sizes, kernel, weight, rows, per_step)


def _case(sizes: KernelSizes, kernel: str, weight: torch.Tensor, rows: int, per_step: int) -> KernelCase:
    x = sizes.random(rows, weight.shape[1])
    first, *others = (partial(skinny_product, x, weight, tiling, dtype=x.dtype) for tiling in TILINGS)
    return KernelCase(
        family=FAMILY,
        kernel=kernel,
        rows=rows,
        run=first,
        variants=tuple(others),
        others={"torch, cuBLAS": lambda: torch.mm(x, weight.t())},
        num_bytes=weight.nbytes + x.nbytes + rows * len(weight) * x.element_size(),
        operations=2.0 * rows * weight.numel(),
        per_step=per_step,
    )
