"""RMSNorm of chosen rows."""

from __future__ import annotations

import pytest
import torch

from tests.text_engine.triton_kernels.layer_shapes import DTYPES, normal
from vfastml.text_engine.triton_kernels.rms_norm import rms_norm, rms_norm_reference

EPS = 1e-5


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("hidden", [60, 576, 4096, 9000])
def test_equals_torch(hidden: int, dtype: torch.dtype, device: torch.device) -> None:
    x = normal(5, hidden, seed=1, dtype=dtype, device=device) * 9
    weight = normal(hidden, seed=2, dtype=dtype, device=device)
    for index in (None, torch.tensor([0, 3], device=device)):
        torch.testing.assert_close(rms_norm(x, weight, EPS, index), rms_norm_reference(x, weight, EPS, index))


def test_rows_that_are_not_asked_for_are_not_looked_at(device: torch.device) -> None:
    x = torch.full((3, 32), float("nan"), device=device)
    x[1] = 2.0
    weight = torch.full((32,), 0.5, device=device)
    found = rms_norm(x, weight, 0.0, torch.tensor([1], device=device))
    torch.testing.assert_close(found, torch.full((1, 32), 0.5, device=device))


def test_no_rows(device: torch.device) -> None:
    none = torch.empty(0, dtype=torch.int64, device=device)
    assert rms_norm(torch.ones(3, 8, device=device), torch.ones(8, device=device), EPS, none).shape == (0, 8)
