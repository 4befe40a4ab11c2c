"""What the kernels' tests share."""

from __future__ import annotations

from typing import Any

import pytest
import torch


@pytest.fixture
def poisoned_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """New tensors that nothing has been written to are full of NaN: what a kernel leaves out shows."""

    new_empty = torch.Tensor.new_empty

    def new_poisoned(self: torch.Tensor, *shape: int, **options: Any) -> torch.Tensor:
        tensor = new_empty(self, *shape, **options)
        return tensor.fill_(torch.nan) if tensor.is_floating_point() else tensor

    monkeypatch.setattr(torch.Tensor, "new_empty", new_poisoned)
