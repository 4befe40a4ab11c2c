"""Where the kernels run in tests: on a GPU if there is one, else in Triton's interpreter."""

from __future__ import annotations

import os

import pytest
import torch

if not torch.cuda.is_available():
    os.environ["TRITON_INTERPRET"] = "1"  # read when a kernel is decorated, so before any is imported


@pytest.fixture
def device() -> torch.device:
    """That the kernels run on."""
    return torch.device("cuda:0" if torch.cuda.is_available() else "cpu")
