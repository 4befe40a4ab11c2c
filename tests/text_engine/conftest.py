"""Where kernels run in tests."""

from __future__ import annotations

import pytest
import torch


@pytest.fixture(scope="session")
def device() -> torch.device:
    """A GPU if there is one, else the CPU with Triton's interpreter."""
    return torch.device("cuda:0" if torch.cuda.is_available() else "cpu")
