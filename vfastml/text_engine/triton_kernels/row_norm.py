"""What the layer kernels share: a row's 1 / rms, computed where it is used, and how many programs a launch gets."""

from __future__ import annotations

import triton
import triton.language as tl

_PROGRAMS = 512
"""About four for each multiprocessor of a large card: fewer leave some of it idle, more only read the rows again."""
_LARGEST_BLOCK = 4096
"""Numbers of a row that a program holds at once: 32 for each of its threads."""


def programs_per_row(num_rows: int, most: int) -> int:
    """How many programs share a row's work. Each of them reads the whole row for its norm, which is not worth it where
    rows alone fill the card: there the answer is one, and every row is read once."""
    return max(1, min(most, -(-_PROGRAMS // num_rows)))


def row_block(hidden_size: int) -> int:
    """The block that `inverse_rms` takes a row in."""
    return min(int(triton.next_power_of_2(hidden_size)), _LARGEST_BLOCK)


@triton.jit
def inverse_rms(x_ptr, row, eps, HIDDEN: tl.constexpr, BLOCK: tl.constexpr):
    """1 / sqrt(mean of squares + eps) in float32 of one row of x [T, HIDDEN]; `row` is int64."""
    columns = tl.arange(0, BLOCK)
    squares = tl.zeros([BLOCK], tl.float32)
    for start in tl.static_range(0, HIDDEN, BLOCK):
        inside = start + columns < HIDDEN
        x = tl.load(x_ptr + row * HIDDEN + start + columns, mask=inside, other=0.0).to(tl.float32)
        squares += x * x
    return tl.rsqrt(tl.sum(squares, axis=0) / HIDDEN + eps)
