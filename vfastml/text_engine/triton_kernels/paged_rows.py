"""What the attention kernels read of a step, and what of a layer is fixed when they are compiled."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from vfastml.text_engine.attention.interface import AttentionOptions
from vfastml.text_engine.triton_kernels.launch_parameters import padded


@dataclass(frozen=True, slots=True, kw_only=True)
class PagedRows:
    """The rows of a step, their arrays (see BatchInputs) int32 on the device."""

    query_starts: torch.Tensor
    """[R + 1]."""
    context_lens: torch.Tensor
    """[R]. 0: a row that pads the step; zeros come out."""
    block_starts: torch.Tensor
    """[R + 1]."""
    block_tables: torch.Tensor
    """[N]."""
    num_rows: int


def layer_constants(
    query: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, options: AttentionOptions
) -> dict[str, int | float]:
    """For one layer's `query` [T, num_heads, key_dim] and its cache, the same in every step."""
    _, block_size, num_kv_heads, key_dim = keys.shape
    value_dim = values.shape[-1]
    return {
        "NUM_KV_HEADS": num_kv_heads,
        "HEADS_PER_KV": query.shape[1] // num_kv_heads,
        "KEY_DIM": key_dim,
        "VALUE_DIM": value_dim,
        "BLOCK_KEY_DIM": padded(key_dim),
        "BLOCK_VALUE_DIM": padded(value_dim),
        "BLOCK_SIZE": block_size,
        "WINDOW": options.sliding_window or 0,
        "SOFTCAP": options.softcap or 0.0,
    }
