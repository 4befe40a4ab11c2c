"""Where a model's tensors come from, by their names."""

from __future__ import annotations

from typing import Protocol

import torch


class TensorSource(Protocol):
    """Tensors that are made when they are asked for."""

    names: set[str]

    def kind(self, name: str) -> tuple[str, list[int]]:
        """The dtype, as safetensors spells it, and the shape."""

    def read(self, name: str) -> torch.Tensor:
        """A tensor that may not be written to."""

    def read_mapped(self, name: str) -> torch.Tensor:
        """The same, without holding anything else in memory."""
