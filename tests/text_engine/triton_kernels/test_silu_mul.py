"""The gated activation of a product whose norm is still to be applied."""

from __future__ import annotations

import pytest
import torch

from tests.text_engine.triton_kernels.layer_shapes import DTYPES, SHAPES, LayerShape, normal
from vfastml.text_engine.triton_kernels import row_norm
from vfastml.text_engine.triton_kernels.silu_mul import silu_mul, silu_mul_reference

EPS = 1e-5


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES.keys())
def test_equals_torch(shape: LayerShape, dtype: torch.dtype, device: torch.device) -> None:
    gate_up = normal(2, 2 * shape.inter, seed=1, dtype=dtype, device=device) * 7
    x = normal(2, shape.hidden, seed=2, dtype=dtype, device=device) * 7
    bias = normal(2 * shape.inter, seed=3, dtype=dtype, device=device) if shape.has_bias else None
    found = silu_mul(gate_up, x, eps=EPS, dtype=dtype, bias=bias)
    assert found.dtype == dtype
    torch.testing.assert_close(found, silu_mul_reference(gate_up, x, eps=EPS, dtype=dtype, bias=bias))


@pytest.mark.parametrize("programs", [1, 6, 99])
def test_programs_that_share_a_row_and_those_that_have_one_each(
    device: torch.device, monkeypatch: pytest.MonkeyPatch, programs: int
) -> None:
    monkeypatch.setattr(row_norm, "_PROGRAMS", programs)
    gate_up = normal(3, 2 * 2500, seed=1, dtype=torch.float32, device=device)
    x = normal(3, 8, seed=2, dtype=torch.float32, device=device)
    found = silu_mul(gate_up, x, eps=EPS, dtype=torch.float32)
    torch.testing.assert_close(found, silu_mul_reference(gate_up, x, eps=EPS, dtype=torch.float32))


def test_row_longer_than_a_block(device: torch.device) -> None:
    gate_up = normal(1, 64, seed=1, dtype=torch.float32, device=device)
    x = normal(1, 9000, seed=2, dtype=torch.float32, device=device) * 3
    found = silu_mul(gate_up, x, eps=EPS, dtype=torch.float32)
    torch.testing.assert_close(found, silu_mul_reference(gate_up, x, eps=EPS, dtype=torch.float32))


def test_product_beyond_float16_is_what_its_row_makes_of_it(device: torch.device) -> None:
    gate_up = normal(2, 64, seed=1, dtype=torch.float32, device=device) * 1e6
    x = normal(2, 32, seed=2, dtype=torch.float16, device=device) * 1e3
    x[1] = 60000.0  # whose squares float16 does not hold
    found = silu_mul(gate_up, x, eps=EPS, dtype=torch.float16, bias=None)
    expected = silu_mul_reference(gate_up, x, eps=EPS, dtype=torch.float16)
    torch.testing.assert_close(found, expected)
    assert found[1].isfinite().all()
