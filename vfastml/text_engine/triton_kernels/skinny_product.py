"""Products of a few rows with a large matrix: what decode steps of small batches spend their time with.

Such a product reads the matrix once and computes next to nothing, so what counts is that every part of the card reads
all the time. A program takes a few outputs and goes along the whole input; what comes behind the product, the sum with
the residual or silu(gate) * up with the norm before it, is done while the outputs are at hand, and saves a launch.
Each output is summed up in one order, whatever rows are beside it.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
import triton
import triton.language as tl

MOST_ROWS = 16
"""Of x: one tile of a matrix unit, which costs the same however few of its rows are used."""


class Tiling(NamedTuple):
    """How one launch is cut up."""

    outputs: int
    """Of a program; a power of two, at least 16."""
    inputs: int
    """That it takes at once; a power of two, at least 16."""
    warps: int
    stages: int
    """Loads that are under way at the same time."""


TILINGS = (
    Tiling(16, 256, 4, 4),
    Tiling(16, 512, 4, 3),
    Tiling(32, 256, 4, 4),
    Tiling(32, 128, 2, 6),
    Tiling(64, 128, 4, 5),
)
"""Which of them is best depends on the card and the matrix: product_tuning.py measures."""


def skinny_product(x: torch.Tensor, weight: torch.Tensor, tiling: Tiling, *, dtype: torch.dtype) -> torch.Tensor:
    """x [T, in] @ weight [out, in]^T, [T, out] in `dtype`. Both are contiguous and of one dtype; T is at most
    MOST_ROWS."""
    output = torch.empty((len(x), len(weight)), dtype=dtype, device=x.device)
    _launch(_product_kernel, output, x, weight, tiling, ADDS=False)
    return output


def skinny_add(residual: torch.Tensor, x: torch.Tensor, weight: torch.Tensor, tiling: Tiling) -> None:
    """Adds the same product to `residual` [T, out], contiguous, in place. The sum is rounded once."""
    _launch(_product_kernel, residual, x, weight, tiling, ADDS=True)


def skinny_silu_mul(
    x: torch.Tensor, weight: torch.Tensor, tiling: Tiling, *, eps: float, bias: torch.Tensor | None = None
) -> torch.Tensor:
    """What silu_mul (silu_mul.py) makes of the product with `weight` [2 * inter, in], gates first: [T, inter] in the
    dtype of x. The product is never rounded on the way."""
    output = torch.empty((len(x), len(weight) // 2), dtype=x.dtype, device=x.device)
    _launch(_silu_mul_kernel, output, x, weight, tiling, bias_ptr=bias, eps=eps)
    return output


def _launch(
    kernel: Any, output: torch.Tensor, x: torch.Tensor, weight: torch.Tensor, tiling: Tiling, **further: Any
) -> None:
    num_rows, num_outputs = output.shape
    assert num_rows <= MOST_ROWS, f"at most {MOST_ROWS} rows"
    kernel[(triton.cdiv(num_outputs, tiling.outputs),)](
        output,
        x,
        weight,
        num_rows=num_rows,
        num_outputs=num_outputs,
        num_inputs=x.shape[1],
        ROWS=MOST_ROWS,
        OUTPUTS=tiling.outputs,
        INPUTS=tiling.inputs,
        num_warps=tiling.warps,
        num_stages=tiling.stages,
        **further,
    )


@triton.jit
def _load_weights(weight_ptr, outputs, inputs, num_outputs, num_inputs):
    """[OUTPUTS, INPUTS]. They are read once a step, and are in the way of what is read again."""
    places = weight_ptr + outputs.to(tl.int64)[:, None] * num_inputs + inputs[None, :]
    inside = (outputs[:, None] < num_outputs) & (inputs[None, :] < num_inputs)
    return tl.load(places, mask=inside, other=0.0, eviction_policy="evict_first")


@triton.jit
def _multiply(x, weights, sums):
    """A product in float32 stays one: no shorter format is put in its place."""
    return tl.dot(x, tl.trans(weights), sums, input_precision="ieee")


@triton.jit(do_not_specialize=["num_rows"])
def _product_kernel(
    output_ptr,
    x_ptr,
    weight_ptr,
    num_rows,
    num_outputs,
    num_inputs,
    ROWS: tl.constexpr,
    OUTPUTS: tl.constexpr,
    INPUTS: tl.constexpr,
    ADDS: tl.constexpr,
):
    rows = tl.arange(0, ROWS)
    outputs = tl.program_id(0) * OUTPUTS + tl.arange(0, OUTPUTS)
    sums = tl.zeros([ROWS, OUTPUTS], tl.float32)
    for start in range(0, num_inputs, INPUTS):
        inputs = start + tl.arange(0, INPUTS)
        weights = _load_weights(weight_ptr, outputs, inputs, num_outputs, num_inputs)
        inside = (rows[:, None] < num_rows) & (inputs[None, :] < num_inputs)
        x = tl.load(x_ptr + rows[:, None] * num_inputs + inputs[None, :], mask=inside, other=0.0)
        sums = _multiply(x, weights, sums)
    places = output_ptr + rows[:, None] * num_outputs + outputs[None, :]
    inside = (rows[:, None] < num_rows) & (outputs[None, :] < num_outputs)
    if ADDS:
        sums += tl.load(places, mask=inside, other=0.0).to(tl.float32)
    tl.store(places, sums.to(output_ptr.dtype.element_ty), mask=inside)


@triton.jit(do_not_specialize=["num_rows"])
def _silu_mul_kernel(
    output_ptr,
    x_ptr,
    weight_ptr,
    bias_ptr,
    num_rows,
    num_outputs,
    num_inputs,
    eps,
    ROWS: tl.constexpr,
    OUTPUTS: tl.constexpr,
    INPUTS: tl.constexpr,
):
    rows = tl.arange(0, ROWS)
    outputs = tl.program_id(0) * OUTPUTS + tl.arange(0, OUTPUTS)
    up_ptr = weight_ptr + num_outputs.to(tl.int64) * num_inputs
    gates = tl.zeros([ROWS, OUTPUTS], tl.float32)
    ups = tl.zeros([ROWS, OUTPUTS], tl.float32)
    squares = tl.zeros([ROWS], tl.float32)
    for start in range(0, num_inputs, INPUTS):
        inputs = start + tl.arange(0, INPUTS)
        gate_weights = _load_weights(weight_ptr, outputs, inputs, num_outputs, num_inputs)
        up_weights = _load_weights(up_ptr, outputs, inputs, num_outputs, num_inputs)
        inside = (rows[:, None] < num_rows) & (inputs[None, :] < num_inputs)
        x = tl.load(x_ptr + rows[:, None] * num_inputs + inputs[None, :], mask=inside, other=0.0)
        gates = _multiply(x, gate_weights, gates)
        ups = _multiply(x, up_weights, ups)
        squares += tl.sum(x.to(tl.float32) * x.to(tl.float32), axis=1)
    scale = tl.rsqrt(squares / num_inputs + eps)[:, None]
    gates *= scale
    ups *= scale
    if bias_ptr is not None:
        gates += tl.load(bias_ptr + outputs, mask=outputs < num_outputs, other=0.0).to(tl.float32)[None, :]
        ups += tl.load(bias_ptr + num_outputs + outputs, mask=outputs < num_outputs, other=0.0).to(tl.float32)[None, :]
    product = gates * tl.sigmoid(gates) * ups
    inside = (rows[:, None] < num_rows) & (outputs[None, :] < num_outputs)
    places = output_ptr + rows[:, None] * num_outputs + outputs[None, :]
    tl.store(places, product.to(output_ptr.dtype.element_ty), mask=inside)
