"""Products with packed weights: right, and for each row the same beside any others."""

from __future__ import annotations

import pytest
import torch

from vfastml.text_engine.decoders.linear import Linear

CPU = torch.device("cpu")
SIZES = [(48, 96), (576, 1536), (64, 8192)]


def weights(shape: tuple[int, int], dtype: torch.dtype) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """weight [out, in], bias [out], input [130, in]."""
    generator = torch.Generator().manual_seed(1)
    weight = torch.randn(shape, generator=generator) / shape[1] ** 0.5
    bias = torch.randn(shape[0], generator=generator)
    x = torch.randn(130, shape[1], generator=generator)
    return weight.to(dtype), bias.to(dtype), x.to(dtype)


@pytest.mark.parametrize(("dtype", "error"), [(torch.float32, 1e-5), (torch.bfloat16, 1e-2), (torch.float16, 2e-3)])
@pytest.mark.parametrize("shape", SIZES)
def test_product(shape: tuple[int, int], dtype: torch.dtype, error: float) -> None:
    weight, bias, x = weights(shape, dtype)
    expected = x.double() @ weight.double().T
    torch.testing.assert_close(Linear(weight, None, CPU)(x).double(), expected, rtol=error, atol=error)
    torch.testing.assert_close(Linear(weight, bias, CPU)(x).double(), expected + bias, rtol=error, atol=error)


@torch.inference_mode()
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("shape", SIZES)
def test_row_is_the_same_beside_any_others(shape: tuple[int, int], dtype: torch.dtype) -> None:
    weight, bias, x = weights(shape, dtype)
    linear = Linear(weight, bias, CPU)
    together = linear(x)
    for count in (2, 3, 5, 8, 16, 33, 64, 100):
        assert torch.equal(linear(x[:count].clone()), together[:count])
        assert torch.equal(linear(x[-count:].clone()), together[-count:])
