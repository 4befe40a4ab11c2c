"""A step's rows with their block tables as one matrix, as the flash kernels take them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from vfastml.text_engine.batch_inputs import BatchInputs, Int32Array
from vfastml.text_engine.host_copies import to_device


@dataclass(frozen=True, slots=True)
class PaddedStep:
    """R rows of together T tokens. The tensors are int32, contiguous and on the device, but for `slots`."""

    slots: torch.Tensor
    """[T] int64."""
    query_starts: torch.Tensor
    """[R + 1]"""
    context_lens: torch.Tensor
    """[R]"""
    key_starts: torch.Tensor
    """[R + 1]: the sums of the context lengths."""
    block_tables: torch.Tensor
    """[R, N]: each row's blocks, then zeros, which are never read."""
    max_query_len: int
    max_context_len: int

    @classmethod
    def of(cls, inputs: BatchInputs) -> PaddedStep:
        """One copy goes to the device."""
        tables = padded_tables(inputs.block_tables, inputs.block_starts)
        key_starts = np.concatenate(([0], np.cumsum(inputs.context_lens)))
        parts = [inputs.query_starts, inputs.context_lens, key_starts, tables.reshape(-1)]
        query_starts, context_lens, keys, flat = _on_device(parts, inputs.slots.device)
        return cls(
            slots=inputs.slots,
            query_starts=query_starts,
            context_lens=context_lens,
            key_starts=keys,
            block_tables=flat.view(tables.shape),
            max_query_len=int(np.diff(inputs.query_starts).max()),
            max_context_len=int(inputs.context_lens.max()),
        )


def padded_tables(block_tables: Int32Array, block_starts: Int32Array) -> Int32Array:
    """[R, N] of ragged tables, with zeros behind each row's blocks."""
    lengths = np.diff(block_starts)
    is_used = np.arange(lengths.max()) < lengths[:, None]
    tables = np.zeros(is_used.shape, dtype=np.int32)
    tables[is_used] = block_tables
    return tables


def _on_device(parts: list[npt.NDArray[Any]], device: torch.device) -> list[torch.Tensor]:
    """Each begins at a multiple of 16 bytes, as a tensor of its own would."""
    aligned = [np.pad(part, (0, -len(part) % 4)).astype(np.int32) for part in parts]
    together = to_device(np.concatenate(aligned), device)
    pieces = torch.split(together, [len(part) for part in aligned])
    return [piece[: len(part)] for piece, part in zip(pieces, parts, strict=True)]
