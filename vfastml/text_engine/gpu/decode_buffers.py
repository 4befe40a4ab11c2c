"""What a decode step reads, in tensors that stay where they are: a CUDA graph reads them anew each time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from vfastml.text_engine.batch_inputs import PackedBatch
from vfastml.text_engine.device_sampler import SamplingRows
from vfastml.text_engine.draw import Draw
from vfastml.text_engine.host_copies import to_device

_ALIGNMENT = 64
"""Bytes: each array begins where vector loads may begin."""


class DecodeBuffers:
    """Room for `max_rows` rows of one token each, over together `max_blocks` blocks. Rows that are not filled compute
    nothing: no context, nowhere to write, greedy."""

    def __init__(self, max_rows: int, max_blocks: int, device: torch.device) -> None:
        self.max_rows = max_rows
        self.max_blocks = max_blocks
        self._device = device
        self._layout = _Layout(max_rows)
        self._host = np.zeros(self._layout.num_bytes, dtype=np.uint8)
        self._numbers = torch.zeros(self._layout.num_bytes, dtype=torch.uint8, device=device)
        of = self._layout.tensors(self._numbers)
        self.input_ids, self.position_ids, self.slots = of["input_ids"], of["position_ids"], of["slots"]
        self.context_lens, self.block_starts = of["context_lens"], of["block_starts"]
        self.sampling = SamplingRows.view(of["sampling"])
        self.query_starts = torch.arange(max_rows + 1, dtype=torch.int32, device=device)
        self.block_tables = torch.zeros(max_blocks, dtype=torch.int32, device=device)

    def fill(self, packed: PackedBatch, draws: Sequence[Draw]) -> None:
        """Takes over a step of at most `max_rows` rows, each with one token and one draw. Two copies go to the device,
        in the order of its other work."""
        num_rows = len(packed.context_lens)
        of = self._layout.arrays(self._host)
        for name in ("input_ids", "position_ids", "slots", "context_lens"):
            of[name][:num_rows] = getattr(packed, name)
            of[name][num_rows:] = -1 if name == "slots" else 0
        of["block_starts"][: num_rows + 1] = packed.block_starts
        of["block_starts"][num_rows + 1 :] = packed.block_starts[-1]
        SamplingRows.fill(of["sampling"], draws)
        self._numbers.copy_(to_device(self._host, self._device), non_blocking=True)
        num_blocks = len(packed.block_tables)
        self.block_tables[:num_blocks].copy_(to_device(packed.block_tables, self._device), non_blocking=True)


class _Layout:
    """Where each array lies in one piece of memory, so that one copy moves them all."""

    def __init__(self, max_rows: int) -> None:
        self._fields: dict[str, tuple[torch.dtype, slice]] = {}
        self.num_bytes = 0
        words, halves = torch.int64, torch.int32
        self._add("input_ids", words, max_rows)
        self._add("position_ids", words, max_rows)
        self._add("slots", words, max_rows)
        self._add("sampling", words, SamplingRows.num_words(max_rows))
        self._add("context_lens", halves, max_rows)
        self._add("block_starts", halves, max_rows + 1)

    def arrays(self, memory: npt.NDArray[np.uint8]) -> dict[str, npt.NDArray[Any]]:
        """Views of host memory."""
        return {name: memory[place].view(f"i{dtype.itemsize}") for name, dtype, place in self._places()}

    def tensors(self, memory: torch.Tensor) -> dict[str, torch.Tensor]:
        """Views of a device's."""
        return {name: memory[place].view(dtype) for name, dtype, place in self._places()}

    def _add(self, name: str, dtype: torch.dtype, count: int) -> None:
        length = count * dtype.itemsize
        self._fields[name] = dtype, slice(self.num_bytes, self.num_bytes + length)
        self.num_bytes += -(-length // _ALIGNMENT) * _ALIGNMENT

    def _places(self) -> Iterator[tuple[str, torch.dtype, slice]]:
        return ((name, dtype, place) for name, (dtype, place) in self._fields.items())
