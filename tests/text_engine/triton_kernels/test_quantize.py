"""Rows in 8-bit floats."""

from __future__ import annotations

import pytest
import torch

from tests.text_engine.triton_kernels.layer_shapes import DTYPES, normal
from vfastml.text_engine.triton_kernels.quantize import LARGEST, quantize_rows, quantize_rows_reference

pytestmark = pytest.mark.skipif(
    torch.cuda.is_available() and torch.cuda.get_device_capability() < (8, 9), reason="this GPU has no 8-bit floats"
)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("width", [60, 576, 14336])
def test_equals_torch(width: int, dtype: torch.dtype, device: torch.device) -> None:
    x = normal(3, width, seed=1, dtype=dtype, device=device)
    x[0] *= 1e-3
    x[1, ::7] *= 3e3  # a few large channels
    rows, scales = quantize_rows(x)
    expected_rows, expected_scales = quantize_rows_reference(x)
    assert (rows.dtype, scales.dtype, scales.shape) == (torch.float8_e4m3fn, torch.float32, (3, 1))
    torch.testing.assert_close(scales, expected_scales)
    differs = rows.float() != expected_rows.float()
    assert differs.float().mean() < 1e-3  # a quotient right between two may go either way
    torch.testing.assert_close(rows.float(), expected_rows.float(), rtol=0.13, atol=2**-9)
    assert rows.float().abs().amax(1).tolist() == [LARGEST] * 3


def test_zeros_stay_zeros(device: torch.device) -> None:
    rows, scales = quantize_rows(torch.zeros(2, 32, device=device))
    assert not rows.float().any()
    assert scales.isfinite().all()


def test_what_is_lost_is_lost_relative_to_each_number(device: torch.device) -> None:
    x = 2.0 ** torch.linspace(-13, 0, 64, device=device)[None]
    rows, scales = quantize_rows(x)
    assert ((rows.float() * scales - x).abs() / x).max() < 2**-4
