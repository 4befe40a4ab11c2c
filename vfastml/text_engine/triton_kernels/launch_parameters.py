"""How large the attention kernels' tiles are, and how many warps work on one: by head dim, dtype, GPU and kind of row.

One table, by hand. Nothing is measured at run time: that would be in the middle of serving.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cache

import torch

_SHARED_MEMORY = {(8, 0): 163, (8, 7): 163, (9, 0): 227, (10, 0): 227, (10, 3): 227, (11, 0): 227}
"""KiB that one program may have, by compute capability."""
_LEAST_SHARED_MEMORY = 99
"""Of all the others since Ampere."""
_SPARE = 6
"""KiB that the compiler takes for reductions and for changes of layout."""


@dataclass(frozen=True, slots=True)
class LaunchParameters:
    """Of one attention kernel."""

    block_m: int
    """Rows of a query tile: pairs of a token and a query head, all of one KV head. A power of two."""
    tile: int
    """Keys of a tile. A power of two."""
    num_warps: int
    num_stages: int
    """Of the pipeline: so many tiles of keys and values are in shared memory, less one where no warp group multiplies
    from there."""

    def shared_memory(self, key_dim: int, value_dim: int, itemsize: int) -> int:
        """KiB, at most."""
        numbers = self.block_m * max(key_dim, value_dim) + self.num_stages * self.tile * (key_dim + value_dim)
        return numbers * itemsize // 1024 + _SPARE


# By head dim, the larger of keys' and values', filled up to a power of two.
_PREFILL = {
    64: LaunchParameters(block_m=128, tile=64, num_warps=4, num_stages=3),
    128: LaunchParameters(block_m=128, tile=64, num_warps=8, num_stages=3),
    256: LaunchParameters(block_m=128, tile=64, num_warps=8, num_stages=2),
}
_DECODE = {
    64: LaunchParameters(block_m=16, tile=64, num_warps=4, num_stages=4),
    128: LaunchParameters(block_m=16, tile=64, num_warps=4, num_stages=3),
    256: LaunchParameters(block_m=16, tile=32, num_warps=4, num_stages=3),
}
_FLOAT32 = {
    64: LaunchParameters(block_m=32, tile=32, num_warps=4, num_stages=2),
    128: LaunchParameters(block_m=16, tile=32, num_warps=4, num_stages=2),
    256: LaunchParameters(block_m=16, tile=16, num_warps=4, num_stages=2),
}
"""Exact products, which no matrix instruction computes: for checks, not for speed."""


@cache
def prefill_parameters(
    key_dim: int, value_dim: int, heads_per_kv: int, dtype: torch.dtype, device: torch.device
) -> LaunchParameters:
    """For rows of several tokens. Dims are padded ones (`padded`)."""
    table = _FLOAT32 if dtype.itemsize == 4 else _PREFILL
    return _fitting(table, key_dim, value_dim, heads_per_kv, dtype, device)


@cache
def decode_parameters(
    key_dim: int, value_dim: int, heads_per_kv: int, dtype: torch.dtype, device: torch.device
) -> LaunchParameters:
    """For rows of one token. Dims are padded ones."""
    table = _FLOAT32 if dtype.itemsize == 4 else _DECODE
    return _fitting(table, key_dim, value_dim, heads_per_kv, dtype, device)


def padded(number: int) -> int:
    """The next power of two that a matrix product may have as a side."""
    return max(16, 1 << (number - 1).bit_length())


def num_multiprocessors(device: torch.device) -> int:
    """Of the GPU; few where the kernels are interpreted, one program after the other."""
    return torch.cuda.get_device_properties(device).multi_processor_count if device.type == "cuda" else 8


def _fitting(
    table: dict[int, LaunchParameters],
    key_dim: int,
    value_dim: int,
    heads_per_kv: int,
    dtype: torch.dtype,
    device: torch.device,
) -> LaunchParameters:
    """The table's, with tiles as small as the GPU's shared memory wants them, and room for all heads of a KV head."""
    parameters = table[min((dim for dim in table if dim >= max(key_dim, value_dim)), default=max(table))]
    parameters = replace(parameters, block_m=max(parameters.block_m, padded(heads_per_kv)))
    least_block_m = padded(heads_per_kv)
    while parameters.shared_memory(key_dim, value_dim, dtype.itemsize) > _shared_memory(device):
        if parameters.tile > 16:
            parameters = replace(parameters, tile=parameters.tile // 2)
        elif parameters.block_m > least_block_m:
            parameters = replace(parameters, block_m=parameters.block_m // 2)
        else:
            break  # the launch says what is missing
    return parameters


def _shared_memory(device: torch.device) -> int:
    return _SHARED_MEMORY.get(_capability(device), _LEAST_SHARED_MEMORY)


def _capability(device: torch.device) -> tuple[int, int]:
    """Of the GPU; of an H100 where the kernels are interpreted."""
    return torch.cuda.get_device_capability(device) if device.type == "cuda" else (9, 0)
