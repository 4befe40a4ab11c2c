"""Between the gate/up product and the down product, in one launch: the norm that was left out before the product (see
rope_write.py), biases, and silu(gate) * up.

In decode several programs share a row and each reads the residual again for its norm; in prefill one program goes along
a whole row, so that the residual is read once. Each block is asked for before the work that comes before it.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl

from vfastml.text_engine.triton_kernels.row_norm import inverse_rms, programs_per_row, row_block

_BLOCK = 1024
"""Outputs that a program computes at once: 16 bytes in 16 bits for each of its threads."""


def silu_mul(
    gate_up: torch.Tensor, x: torch.Tensor, *, eps: float, dtype: torch.dtype, bias: torch.Tensor | None = None
) -> torch.Tensor:
    """silu(gate * r + its bias) * (up * r + its bias), [T, inter] in `dtype`; r is each row's 1 / rms of `x`.

    `x` is [T, hidden], `gate_up` [T, 2 * inter] is the product of x, which is not normed; `bias` is [2 * inter].
    Everything is contiguous, and computed in float32.
    """
    inter = gate_up.shape[1] // 2
    output = torch.empty((len(x), inter), dtype=dtype, device=x.device)
    _silu_mul_kernel[(len(x), programs_per_row(len(x), -(-inter // _BLOCK)))](
        gate_up, x, bias, output, eps, HIDDEN=x.shape[1], INTER=inter, BLOCK_HIDDEN=row_block(x.shape[1]), BLOCK=_BLOCK
    )
    return output


@triton.jit
def _load_pair(gate_up_ptr, row, columns, INTER: tl.constexpr):
    places = gate_up_ptr + row * (2 * INTER) + columns
    gate = tl.load(places, mask=columns < INTER, other=0.0)
    up = tl.load(places + INTER, mask=columns < INTER, other=0.0)
    return gate, up


@triton.jit
def _silu_mul_kernel(
    gate_up_ptr,
    x_ptr,
    bias_ptr,
    output_ptr,
    eps,
    HIDDEN: tl.constexpr,
    INTER: tl.constexpr,
    BLOCK_HIDDEN: tl.constexpr,
    BLOCK: tl.constexpr,
):
    row = tl.program_id(0).to(tl.int64)
    own_columns = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    gate, up = _load_pair(gate_up_ptr, row, own_columns, INTER)
    scale = inverse_rms(x_ptr, row, eps, HIDDEN, BLOCK_HIDDEN)
    stride = tl.num_programs(1) * BLOCK
    for start in range(0, INTER, stride):
        columns = start + own_columns
        inside = columns < INTER
        next_gate, next_up = _load_pair(gate_up_ptr, row, columns + stride, INTER)
        scaled_gate = gate.to(tl.float32) * scale
        scaled_up = up.to(tl.float32) * scale
        if bias_ptr is not None:
            scaled_gate += tl.load(bias_ptr + columns, mask=inside, other=0.0).to(tl.float32)
            scaled_up += tl.load(bias_ptr + INTER + columns, mask=inside, other=0.0).to(tl.float32)
        product = scaled_gate * tl.sigmoid(scaled_gate) * scaled_up
        tl.store(output_ptr + row * INTER + columns, product.to(output_ptr.dtype.element_ty), mask=inside)
        gate, up = next_gate, next_up


def silu_mul_reference(
    gate_up: torch.Tensor, x: torch.Tensor, *, eps: float, dtype: torch.dtype, bias: torch.Tensor | None = None
) -> torch.Tensor:
    """The same in torch."""
    scaled = gate_up.float() * torch.rsqrt(x.float().square().mean(-1, keepdim=True) + eps)
    gate, up = (scaled if bias is None else scaled + bias.float()).chunk(2, dim=-1)
    return (torch.nn.functional.silu(gate) * up).to(dtype)
