"""A step's keys and values into the paged cache, both in one launch: what `KVCache.write` does."""

from __future__ import annotations

import torch
import triton
import triton.language as tl


def write_kv(
    keys: torch.Tensor, values: torch.Tensor, slots: torch.Tensor, key: torch.Tensor, value: torch.Tensor
) -> None:
    """Stores key and value [T, num_kv_heads, dim] in a layer's cache at `slots` [T]; a slot below 0 gets nothing.

    What is not finite in the cache's dtype is stored as zero. Key and value may be views: only each head's numbers must
    lie side by side.
    """
    num_kv_heads, key_dim, value_dim = keys.shape[2], keys.shape[3], values.shape[3]
    _write_kernel[(len(slots),)](
        keys,
        values,
        slots,
        key,
        value,
        key.stride(0),
        key.stride(1),
        value.stride(0),
        value.stride(1),
        NUM_KV_HEADS=num_kv_heads,
        KEY_DIM=key_dim,
        VALUE_DIM=value_dim,
        BLOCK_HEADS=triton.next_power_of_2(num_kv_heads),
        BLOCK_KEY_DIM=triton.next_power_of_2(key_dim),
        BLOCK_VALUE_DIM=triton.next_power_of_2(value_dim),
    )


@triton.jit
def _store_finite(
    cache: tl.tensor,
    slot: tl.tensor,
    numbers: tl.tensor,
    head_stride: tl.tensor,
    NUM_HEADS: tl.constexpr,
    DIM: tl.constexpr,
    BLOCK_HEADS: tl.constexpr,
    BLOCK_DIM: tl.constexpr,
) -> None:
    heads = tl.arange(0, BLOCK_HEADS)[:, None]
    columns = tl.arange(0, BLOCK_DIM)[None, :]
    mask = (heads < NUM_HEADS) & (columns < DIM)
    stored = tl.load(numbers + heads * head_stride + columns, mask=mask, other=0.0).to(cache.dtype.element_ty)
    # NaN is not less than anything.
    stored = tl.where(tl.abs(stored.to(tl.float32)) < float("inf"), stored, 0.0)
    tl.store(cache + slot * (NUM_HEADS * DIM) + heads * DIM + columns, stored, mask=mask)


@triton.jit(do_not_specialize_on_alignment=["slots"])
def _write_kernel(
    keys: tl.tensor,
    values: tl.tensor,
    slots: tl.tensor,
    key: tl.tensor,
    value: tl.tensor,
    key_stride: tl.tensor,
    key_head_stride: tl.tensor,
    value_stride: tl.tensor,
    value_head_stride: tl.tensor,
    NUM_KV_HEADS: tl.constexpr,
    KEY_DIM: tl.constexpr,
    VALUE_DIM: tl.constexpr,
    BLOCK_HEADS: tl.constexpr,
    BLOCK_KEY_DIM: tl.constexpr,
    BLOCK_VALUE_DIM: tl.constexpr,
) -> None:
    token = tl.program_id(0).to(tl.int64)
    slot = tl.load(slots + token)
    if slot < 0:
        return
    _store_finite(
        keys, slot, key + token * key_stride, key_head_stride, NUM_KV_HEADS, KEY_DIM, BLOCK_HEADS, BLOCK_KEY_DIM
    )
    _store_finite(
        values, slot, value + token * value_stride, value_head_stride, NUM_KV_HEADS, VALUE_DIM, BLOCK_HEADS,
        BLOCK_VALUE_DIM,
    )  # fmt: skip
