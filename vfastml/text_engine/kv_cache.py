"""The memory that keys and values live in: for each layer, `num_blocks` blocks of `block_size` tokens."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import psutil
import torch

from vfastml.text_engine.host_copies import to_device
from vfastml.text_engine.huge_pages import huge_zeros

_CONTROL_GROUP = Path("/sys/fs/cgroup")
_NO_LIMIT = 1 << 62


@dataclass(frozen=True, slots=True)
class KVShape:
    """What one attention layer keeps for each token, and where."""

    num_heads: int
    """KV heads, not query heads."""
    key_dim: int
    value_dim: int
    device: torch.device | None = None
    """Where the layer computes; None: where the decoder takes its inputs."""

    @property
    def numbers_per_token(self) -> int:
        """Of keys and values together."""
        return self.num_heads * (self.key_dim + self.value_dim)


class KVCache:
    """`keys[layer]` is [num_blocks, block_size, num_heads, key_dim]; `values[layer]` likewise. Each lies on its layer's
    device, and on `device` where the layer names none.

    Always finite: zeroed, and what a model computes beyond its dtype's range is stored as zero. A masked position still
    multiplies what an earlier sequence left there by zero, and zero times infinity is NaN.
    """

    def __init__(
        self, shapes: Sequence[KVShape], num_blocks: int, block_size: int, dtype: torch.dtype, device: torch.device
    ) -> None:
        self.block_size = block_size

        def blocks(shape: KVShape, dim: int) -> torch.Tensor:
            return _zeros((num_blocks, block_size, shape.num_heads, dim), dtype, shape.device or device)

        self.keys = [blocks(shape, shape.key_dim) for shape in shapes]
        self.values = [blocks(shape, shape.value_dim) for shape in shapes]

    def write(self, layer: int, slots: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> None:
        """Stores key and value [T, num_heads, dim] at `slots` [T]."""
        self.keys[layer].flatten(0, 1).index_copy_(0, slots, key.nan_to_num(0.0, 0.0, 0.0))
        self.values[layer].flatten(0, 1).index_copy_(0, slots, value.nan_to_num(0.0, 0.0, 0.0))

    def copy_blocks(self, copies: Sequence[tuple[int, int]]) -> None:
        """Copies whole blocks (from, to) in every layer."""
        if not copies:
            return
        pairs = np.array(copies, dtype=np.int64)
        devices = {cache.device for cache in (*self.keys, *self.values)}
        on_device = {device: to_device(pairs, device).unbind(1) for device in devices}
        for cache in (*self.keys, *self.values):
            sources, targets = on_device[cache.device]
            cache[targets] = cache[sources]


def _zeros(shape: tuple[int, ...], dtype: torch.dtype, device: torch.device) -> torch.Tensor:
    if device.type != "cpu":
        return torch.zeros(shape, dtype=dtype, device=device)
    return huge_zeros(math.prod(shape) * dtype.itemsize).view(dtype).view(shape)


def bytes_per_block(shapes: Sequence[KVShape], block_size: int, dtype: torch.dtype) -> int:
    """Of all layers together."""
    return sum(shape.numbers_per_token for shape in shapes) * block_size * dtype.itemsize


def free_memory() -> int:
    """Bytes that this machine, or container, has left."""
    return min(int(psutil.virtual_memory().available), _container_free_memory())


def _container_free_memory() -> int:
    """What the control group (version 2) still allows; the machine's own figures do not know it.

    Pages of files that were read a while ago count as used, but are given up when memory is asked for.
    """
    try:
        limit = int((_CONTROL_GROUP / "memory.max").read_text())  # without a limit it says `max`: ValueError
        used = int((_CONTROL_GROUP / "memory.current").read_text())
        stat = (_CONTROL_GROUP / "memory.stat").read_text()
        reclaimable = dict(line.split() for line in stat.splitlines()).get("inactive_file", "0")
        return max(0, limit - used + int(reclaimable))
    except (OSError, ValueError):
        return _NO_LIMIT
