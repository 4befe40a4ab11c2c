"""Where the kernels run in tests: on a GPU if there is one, else in Triton's interpreter."""

from __future__ import annotations

import os
from typing import Any

import pytest
import torch

if not torch.cuda.is_available():
    os.environ["TRITON_INTERPRET"] = "1"  # read when a kernel is decorated, so before any is imported


@pytest.fixture
def device() -> torch.device:
    """That the kernels run on."""
    return torch.device("cuda:0" if torch.cuda.is_available() else "cpu")


@pytest.fixture
def poisoned_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """New tensors that nothing has been written to are full of NaN: what a kernel leaves out shows."""

    new_empty = torch.Tensor.new_empty

    def new_poisoned(self: torch.Tensor, *shape: int, **options: Any) -> torch.Tensor:
        tensor = new_empty(self, *shape, **options)
        return tensor.fill_(torch.nan) if tensor.is_floating_point() else tensor

    monkeypatch.setattr(torch.Tensor, "new_empty", new_poisoned)
