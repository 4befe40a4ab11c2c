"""Rows in 8-bit floats (e4m3), each with a scale of its own, as the products of fp8 take them."""

from __future__ import annotations

import torch
import triton
import triton.language as tl

LARGEST = 448.0
"""Of float8_e4m3fn."""
_LEAST = 1e-30
"""In the place of the largest number of a row of zeros."""


def quantize_rows(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """`x` [T, K] as float8_e4m3fn [T, K] times scales [T, 1] in float32: the largest number of a row becomes 448.

    One program has a whole row in its registers, which it reads once: a row is at most some ten thousand numbers, and
    its scale has to be known before the first of them can be written.
    """
    num_rows, width = x.shape
    rows = torch.empty((num_rows, width), dtype=torch.float8_e4m3fn, device=x.device)
    scales = torch.empty((num_rows, 1), dtype=torch.float32, device=x.device)
    block = int(triton.next_power_of_2(width))
    warps = min(32, max(4, block // 1024))
    _quantize_kernel[(num_rows,)](
        x, rows, scales, WIDTH=width, BLOCK=block, LARGEST=LARGEST, LEAST=_LEAST, num_warps=warps
    )
    return rows, scales


@triton.jit
def _rounded(x):
    """To the nearest number of e4m3, ties to even. The conversion behind it is exact, and so the same in Triton's
    interpreter, which rounds otherwise, as on a card."""
    bits = x.to(tl.int32, bitcast=True)
    normal = (bits + 0x7FFFF + ((bits >> 20) & 1)) & -0x100000  # three bits of the fraction stay
    subnormal = (x + 24576.0) - 24576.0  # between 2^14 and 2^15 float32 has steps of 2^-9, as e4m3 has below 2^-6
    return tl.where(tl.abs(x) < 0.015625, subnormal, normal.to(tl.float32, bitcast=True))


@triton.jit
def _quantize_kernel(
    x_ptr,
    rows_ptr,
    scales_ptr,
    WIDTH: tl.constexpr,
    BLOCK: tl.constexpr,
    LARGEST: tl.constexpr,
    LEAST: tl.constexpr,
):
    row = tl.program_id(0).to(tl.int64)
    columns = tl.arange(0, BLOCK)
    inside = columns < WIDTH
    x = tl.load(x_ptr + row * WIDTH + columns, mask=inside, other=0.0).to(tl.float32)
    scale = tl.maximum(tl.max(tl.abs(x), axis=0), LEAST) / LARGEST
    tl.store(scales_ptr + row, scale)
    rounded = _rounded(tl.minimum(tl.maximum(x / scale, -LARGEST), LARGEST))
    tl.store(rows_ptr + row * WIDTH + columns, rounded.to(rows_ptr.dtype.element_ty), mask=inside)


def quantize_rows_reference(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The same in torch, which is also how weights are quantized: their rows are the outputs."""
    numbers = x.float()
    scales = numbers.abs().amax(-1, keepdim=True).clamp_min_(_LEAST).div_(LARGEST)
    return (numbers / scales).clamp_(-LARGEST, LARGEST).to(torch.float8_e4m3fn), scales
