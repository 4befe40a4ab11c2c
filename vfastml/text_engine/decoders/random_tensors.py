"""Random tensors in the place of a model's own: as fast to compute with, and made where they are needed, one at a
time."""

from __future__ import annotations

import zlib
from collections.abc import Mapping

import torch

_STD = 0.02
"""As models of this family are initialised: activations stay in the range of every dtype."""
_NAMES = {torch.float32: "F32", torch.bfloat16: "BF16", torch.float16: "F16"}


class RandomTensors:
    """A TensorSource without files. A tensor depends on its name and shape, the dtype and the kind of device alone, so
    it is the same each time it is read."""

    def __init__(self, shapes: Mapping[str, list[int]], dtype: torch.dtype, device: torch.device) -> None:
        self.names = set(shapes)
        self._shapes = shapes
        self._dtype = dtype
        self._device = device

    def kind(self, name: str) -> tuple[str, list[int]]:
        """See TensorSource."""
        return _NAMES[self._dtype], self._shapes[name]

    def read(self, name: str) -> torch.Tensor:
        """On the device, in the dtype: ones for the weight of a norm, else normal numbers around zero."""
        if len(self._shapes[name]) == 1 and name.endswith("norm.weight"):
            return torch.ones(self._shapes[name], dtype=self._dtype, device=self._device)
        generator = torch.Generator(self._device).manual_seed(zlib.crc32(name.encode()))
        tensor = torch.empty(self._shapes[name], dtype=self._dtype, device=self._device)
        return tensor.normal_(0.0, _STD, generator=generator)

    def read_mapped(self, name: str) -> torch.Tensor:
        """There is no file to map: the same as `read`."""
        return self.read(name)
