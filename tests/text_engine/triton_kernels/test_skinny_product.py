"""Products of a few rows, and what is done behind them, against torch."""

from __future__ import annotations

import pytest
import torch
from torch.nn.functional import silu

from vfastml.text_engine.triton_kernels.skinny_product import (
    MOST_ROWS,
    TILINGS,
    Tiling,
    skinny_add,
    skinny_product,
    skinny_silu_mul,
)

SMALL = Tiling(16, 32, 4, 2)
SHAPES = [(1, 576, 40), (16, 64, 48), (3, 33, 17)]
DTYPES = [torch.float32, torch.float16] + [torch.bfloat16] * torch.cuda.is_available()
"""The interpreter multiplies bfloat16 as if it were whole numbers."""


def random_pair(
    rows: int, inputs: int, outputs: int, dtype: torch.dtype, device: torch.device
) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(rows * inputs + outputs)
    x = torch.randn(rows, inputs, generator=generator)
    weight = torch.randn(outputs, inputs, generator=generator) / inputs**0.5
    return x.to(device, dtype), weight.to(device, dtype)


def tolerance(dtype: torch.dtype) -> float:
    return {torch.float32: 2e-6, torch.bfloat16: 1e-2, torch.float16: 2e-3}[dtype]


def close(found: torch.Tensor, expected: torch.Tensor, dtype: torch.dtype) -> None:
    assert found.isfinite().all()
    torch.testing.assert_close(found.double(), expected.double(), atol=4 * tolerance(dtype), rtol=tolerance(dtype))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("rows", "inputs", "outputs"), SHAPES)
def test_product(rows: int, inputs: int, outputs: int, dtype: torch.dtype, device: torch.device) -> None:
    x, weight = random_pair(rows, inputs, outputs, dtype, device)
    expected = x.double() @ weight.double().t()
    close(skinny_product(x, weight, SMALL, dtype=torch.float32), expected, dtype)
    close(skinny_product(x, weight, SMALL, dtype=dtype), expected, dtype)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("rows", "inputs", "outputs"), SHAPES)
def test_sum_with_the_residual(rows: int, inputs: int, outputs: int, dtype: torch.dtype, device: torch.device) -> None:
    x, weight = random_pair(rows, inputs, outputs, dtype, device)
    around = torch.full((rows + 2, outputs), 3.0, dtype=dtype, device=device)
    residual = around[1:-1].copy_(torch.randn(rows, outputs))
    expected = residual.double() + x.double() @ weight.double().t()
    skinny_add(residual, x, weight, SMALL)
    close(residual, expected, dtype)
    assert (around[0] == 3.0).all()
    assert (around[-1] == 3.0).all()


@pytest.mark.parametrize("biased", [False, True])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("rows", "inputs", "inter"), SHAPES)
def test_silu_mul(rows: int, inputs: int, inter: int, dtype: torch.dtype, biased: bool, device: torch.device) -> None:
    x, weight = random_pair(rows, inputs, 2 * inter, dtype, device)
    bias = torch.randn(2 * inter, device=device).to(dtype) if biased else None
    scale = torch.rsqrt(x.double().square().mean(-1, keepdim=True) + 1e-5)
    both = scale * (x.double() @ weight.double().t()) + (0.0 if bias is None else bias.double())
    gate, up = both.chunk(2, dim=-1)
    close(skinny_silu_mul(x, weight, SMALL, eps=1e-5, bias=bias), silu(gate) * up, dtype)


@pytest.mark.parametrize("tiling", TILINGS)
def test_every_tiling_computes_the_same(tiling: Tiling, device: torch.device) -> None:
    x, weight = random_pair(2, 576, 96, torch.float16, device)
    expected = x.double() @ weight.double().t()
    close(skinny_product(x, weight, tiling, dtype=torch.float32), expected, torch.float16)


@pytest.mark.skipif(
    not torch.cuda.is_available(), reason="numpy, which the interpreter computes with, sums up otherwise"
)
def test_a_row_comes_out_the_same_beside_any_others(device: torch.device) -> None:
    x, weight = random_pair(MOST_ROWS, 96, 40, torch.float32, device)
    together = skinny_product(x, weight, SMALL, dtype=torch.float32)
    alone = torch.cat([skinny_product(row[None], weight, SMALL, dtype=torch.float32) for row in x])
    assert torch.equal(together, alone)


def test_more_rows_than_a_tile_has_are_refused(device: torch.device) -> None:
    x, weight = random_pair(MOST_ROWS + 1, 16, 16, torch.float32, device)
    with pytest.raises(AssertionError, match="16 rows"):
        skinny_product(x, weight, SMALL, dtype=torch.float32)
