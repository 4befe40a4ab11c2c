"""Products in 8-bit floats, with the rounding of their inputs, beside those in the model's dtype."""

from __future__ import annotations

from collections.abc import Iterator

import torch

from benchmarks.gpu.kernel_cases import KernelCase, KernelSizes
from benchmarks.gpu.kernel_gemms import matrices
from vfastml.text_engine.decoders.fp8_projection import Fp8Projection
from vfastml.text_engine.triton_kernels.quantize import quantize_rows, quantize_rows_reference

FAMILY = "fp8 products"
_LEAST_CAPABILITY = (8, 9)


def fp8_cases(sizes: KernelSizes) -> Iterator[KernelCase]:
    """The rounding everywhere; the products of a layer on cards that have them."""
    for rows in [*sizes.rows, sizes.prefill_rows]:
        yield _rounding(sizes, rows)
    if sizes.device.type != "cuda" or torch.cuda.get_device_capability(sizes.device) < _LEAST_CAPABILITY:
        return
    for kernel, (outputs, inputs, per_step) in matrices(sizes).items():
        if per_step > 1:
            weight = sizes.random(outputs, inputs, dtype=torch.bfloat16)
            projection = Fp8Projection(weight)
            for rows in [*sizes.rows, sizes.prefill_rows]:
                yield _product(sizes, kernel, weight, projection, rows)


def _product(sizes: KernelSizes, kernel: str, weight: torch.Tensor, projection: Fp8Projection, rows: int) -> KernelCase:
    x = sizes.random(rows, weight.shape[1], dtype=torch.bfloat16)
    return KernelCase(
        family=FAMILY,
        kernel=f"rounding and {kernel}",
        rows=rows,
        run=lambda: projection(x),
        others={"torch, bfloat16": lambda: torch.mm(x, weight.t())},
        num_bytes=weight.numel() + x.nbytes + 2 * rows * len(weight),
        operations=rows * weight.numel(),  # half of what it would be: an fp8 product is twice as fast
    )


def _rounding(sizes: KernelSizes, rows: int) -> KernelCase:
    x = sizes.random(rows, sizes.shape.hidden)
    return KernelCase(
        family=FAMILY,
        kernel="rounding",
        rows=rows,
        run=lambda: quantize_rows(x),
        others={"torch": lambda: quantize_rows_reference(x)},
        num_bytes=x.nbytes + x.numel(),
    )
