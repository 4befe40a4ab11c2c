"""Weights in the form that the kernels read."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch.nn.functional import pad

from vfastml.text_engine.cpu_kernels.kernels import Kernels
from vfastml.text_engine.cpu_kernels.pointers import address
from vfastml.text_engine.cpu_kernels.structs import BF16, F32, I8, Matrix
from vfastml.text_engine.huge_pages import huge_zeros

_ALIGNMENT = 64
_BYTES = {F32: 4, BF16: 2, I8: 1}
_DTYPES = {F32: torch.float32, BF16: torch.bfloat16, I8: torch.float32}
"""Of the weights that are packed into a format."""


class Arena:
    """One piece of memory for all packed weights of a model."""

    def __init__(self, num_bytes: int) -> None:
        self._bytes = huge_zeros(num_bytes)
        self._used = 0

    def take(self, num_bytes: int) -> torch.Tensor:
        """[num_bytes] uint8, zeros."""
        start = self._used
        self._used = start + -(-num_bytes // _ALIGNMENT) * _ALIGNMENT
        if self._used > len(self._bytes):
            raise MemoryError("the arena was made too small")
        return self._bytes[start : start + num_bytes]


class Packer:
    """Packs the matrices of one model into an arena that is made for them."""

    def __init__(self, kernels: Kernels, weight_format: int, shapes: Iterable[tuple[int, int]]) -> None:
        """`shapes` are (outputs, inputs) of every matrix to come."""
        self._kernels = kernels
        self.format = weight_format
        sizes = [self._padded(*shape) for shape in shapes]
        self.num_bytes = sum(outputs * inputs for outputs, inputs in sizes) * _BYTES[weight_format]
        self._arena = Arena(self.num_bytes + len(sizes) * _ALIGNMENT)
        self._kept: list[object] = [self._arena]

    def matrix(self, weight: torch.Tensor, bias: torch.Tensor | None = None) -> Matrix:
        """Packs [outputs, inputs]; 8-bit weights are rounded here, with a scale for each output."""
        outputs, inputs = weight.shape
        padded_outputs, padded_inputs = self._padded(outputs, inputs)
        weight = weight.to(_DTYPES[self.format]).contiguous()
        packed = self._arena.take(padded_outputs * padded_inputs * _BYTES[self.format])
        scales = torch.zeros(padded_outputs) if self.format == I8 else None
        self._kernels.library.vfastml_pack(
            self.format, weight.data_ptr(), packed.data_ptr(), address(scales), outputs, inputs
        )
        self._kept.append(scales)
        return Matrix(
            self.format,
            packed.data_ptr(),
            address(scales),
            self.vector(bias, padded_outputs),
            padded_outputs,
            padded_inputs,
        )

    def vector(self, values: torch.Tensor | None, width: int = 0) -> int | None:
        """The address of the values as float32, padded with zeros to `width`; None for none."""
        if values is None:
            return None
        kept = pad(values.float(), (0, max(0, width - len(values)))).contiguous()
        self._kept.append(kept)
        return kept.data_ptr()

    def keep(self, values: torch.Tensor) -> int:
        """The address of a tensor as it is."""
        self._kept.append(values)
        return values.data_ptr()

    def width(self, inputs: int) -> int:
        """What rows of so many inputs are padded to."""
        return _up_to(inputs, self._kernels.group)

    def _padded(self, outputs: int, inputs: int) -> tuple[int, int]:
        return _up_to(outputs, self._kernels.panel), self.width(inputs)


def interleaved(gate_up: torch.Tensor, half_panel: int) -> torch.Tensor:
    """[2 * N, ...] gates before ups, to blocks of `half_panel` gates and their ups; N is padded with zeros."""
    size, inputs = len(gate_up) // 2, gate_up.shape[1:]
    missing = gate_up.new_zeros(-size % half_panel, *inputs)
    parts = (gate_up[:size], gate_up[size:])
    gate, up = (torch.cat((part, missing)).reshape(-1, half_panel, *inputs) for part in parts)
    return torch.cat((gate, up), dim=1).flatten(0, 1)


def _up_to(count: int, multiple: int) -> int:
    return -(-count // multiple) * multiple
