"""Decode attention over the paged KV cache, long contexts split between programs (Flash-Decoding, Dao et al., 2023)."""

from __future__ import annotations

import torch
import triton
import triton.language as tl

from vfastml.text_engine.attention.interface import AttentionOptions
from vfastml.text_engine.triton_kernels.attention_tiles import NO_SCORE, attend_to_tiles
from vfastml.text_engine.triton_kernels.launch_parameters import decode_parameters
from vfastml.text_engine.triton_kernels.paged_rows import PagedRows, layer_constants

_PROGRAMS_PER_MULTIPROCESSOR = 2
_MAX_SPLITS = 32


def num_splits_for(num_rows: int, num_kv_heads: int, num_multiprocessors: int) -> int:
    """A power of two, from 1: the most that start no more than two programs for each multiprocessor. It does not depend
    on how long the contexts are, so that a captured graph holds for all of them."""
    # So one very long context among many rows is not split. A plan by lengths, made on the device, would be the remedy.
    room = _PROGRAMS_PER_MULTIPROCESSOR * num_multiprocessors // max(1, num_rows * num_kv_heads)
    return 1 << (max(1, min(room, _MAX_SPLITS)).bit_length() - 1)


def decode_attention(
    output: torch.Tensor,
    query: torch.Tensor,
    keys: torch.Tensor,
    values: torch.Tensor,
    rows: PagedRows,
    num_splits: int,
    options: AttentionOptions,
) -> None:
    """Writes `output` [T, num_heads, value_dim], contiguous, for all rows that have one token: in one launch, or two
    with splits (a power of two of them). The rest is as in `prefill_attention`."""
    constants = layer_constants(query, keys, values, options)
    num_kv_heads, num_heads = keys.shape[2], query.shape[1]
    parameters = decode_parameters(
        constants["BLOCK_KEY_DIM"], constants["BLOCK_VALUE_DIM"], num_heads // num_kv_heads, query.dtype, query.device
    )
    means = logs = None
    if num_splits > 1:
        means = query.new_empty(rows.num_rows, num_heads, num_splits, values.shape[-1], dtype=torch.float32)
        logs = query.new_empty(rows.num_rows, num_heads, num_splits, dtype=torch.float32)
    _decode_kernel[(num_kv_heads, num_splits, rows.num_rows)](
        output,
        means,
        logs,
        query,
        keys,
        values,
        rows.query_starts,
        rows.context_lens,
        rows.block_starts,
        rows.block_tables,
        num_splits,
        query.stride(0),
        query.stride(1),
        options.scaling,
        **constants,
        BLOCK_M=parameters.block_m,
        TILE=parameters.tile,
        SPLIT=num_splits > 1,
        num_warps=parameters.num_warps,
        num_stages=parameters.num_stages,
    )
    if num_splits > 1:
        _reduce_kernel[(num_heads, rows.num_rows)](
            output,
            means,
            logs,
            rows.query_starts,
            rows.context_lens,
            NUM_HEADS=num_heads,
            VALUE_DIM=constants["VALUE_DIM"],
            BLOCK_VALUE_DIM=constants["BLOCK_VALUE_DIM"],
            TILE=parameters.tile,
            WINDOW=constants["WINDOW"],
            NUM_SPLITS=num_splits,
        )


@triton.jit
def _split(
    context_len: tl.tensor, split: tl.tensor, num_splits: tl.tensor, TILE: tl.constexpr, WINDOW: tl.constexpr
) -> tl.tensor:
    """The first key that the row's query sees, and the tiles of one split, from and to before; the later splits of a
    short context have none."""
    first_key = tl.maximum(context_len - WINDOW, 0) if WINDOW > 0 else 0
    first_tile = first_key // TILE
    end_tile = (context_len + TILE - 1) // TILE
    share = (end_tile - first_tile + num_splits - 1) // num_splits
    start = tl.minimum(first_tile + split * share, end_tile)
    return first_key, start, tl.minimum(start + share, end_tile)


@triton.jit(
    do_not_specialize=["num_splits"],
    do_not_specialize_on_alignment=["query_starts", "context_lens", "block_starts", "block_tables"],
)
def _decode_kernel(
    output: tl.tensor,
    means: tl.tensor,
    logs: tl.tensor,
    query: tl.tensor,
    keys: tl.tensor,
    values: tl.tensor,
    query_starts: tl.tensor,
    context_lens: tl.tensor,
    block_starts: tl.tensor,
    block_tables: tl.tensor,
    num_splits: tl.tensor,
    query_stride: tl.tensor,
    query_head_stride: tl.tensor,
    scale: tl.tensor,
    NUM_KV_HEADS: tl.constexpr,
    HEADS_PER_KV: tl.constexpr,
    KEY_DIM: tl.constexpr,
    VALUE_DIM: tl.constexpr,
    BLOCK_KEY_DIM: tl.constexpr,
    BLOCK_VALUE_DIM: tl.constexpr,
    BLOCK_SIZE: tl.constexpr,
    WINDOW: tl.constexpr,
    SOFTCAP: tl.constexpr,
    BLOCK_M: tl.constexpr,
    TILE: tl.constexpr,
    SPLIT: tl.constexpr,
) -> None:
    kv_head = tl.program_id(0)
    split = tl.program_id(1)
    row = tl.program_id(2)
    # All before the first branch, so that none of these loads waits for another.
    token = tl.load(query_starts + row).to(tl.int64)
    next_token = tl.load(query_starts + row + 1)
    context_len = tl.load(context_lens + row)
    table = block_tables + tl.load(block_starts + row)
    if next_token - token != 1:
        return
    first_key, first_tile, end_tile = _split(context_len, split, num_splits, TILE, WINDOW)
    if SPLIT & (first_tile >= end_tile):
        return

    lanes = tl.arange(0, BLOCK_M)
    heads = kv_head * HEADS_PER_KV + lanes
    real = lanes < HEADS_PER_KV
    key_columns = tl.arange(0, BLOCK_KEY_DIM)
    query_rows = query + token * query_stride + heads * query_head_stride
    query_mask = real[:, None] & (key_columns < KEY_DIM)[None, :]
    queries = tl.load(query_rows[:, None] + key_columns[None, :], query_mask, other=0.0)

    # fmt: off
    highest, weight_sum, weighted = attend_to_tiles(
        queries, tl.full([BLOCK_M], context_len - 1, dtype=tl.int32),
        tl.full([BLOCK_M], NO_SCORE, dtype=tl.float32),
        tl.full([BLOCK_M], 0.0, dtype=tl.float32),
        tl.full([BLOCK_M, BLOCK_VALUE_DIM], 0.0, dtype=tl.float32),
        first_tile, end_tile, first_key, context_len,
        keys + kv_head * KEY_DIM, values + kv_head * VALUE_DIM, table, scale,
        NUM_KV_HEADS, KEY_DIM, VALUE_DIM, BLOCK_KEY_DIM, BLOCK_VALUE_DIM, BLOCK_SIZE, TILE, WINDOW, SOFTCAP, True,
    )
    # fmt: on

    value_columns = tl.arange(0, BLOCK_VALUE_DIM)
    mask = real[:, None] & (value_columns < VALUE_DIM)[None, :]
    mean = weighted / tl.where(weight_sum > 0.0, weight_sum, 1.0)[:, None]
    num_heads: tl.constexpr = NUM_KV_HEADS * HEADS_PER_KV
    if SPLIT:
        partials = (row.to(tl.int64) * num_heads + heads) * num_splits + split
        tl.store(means + (partials * VALUE_DIM)[:, None] + value_columns[None, :], mean, mask=mask)
        tl.store(logs + partials, highest + tl.log2(weight_sum), mask=real)
    else:
        rows = (token * num_heads + heads) * VALUE_DIM
        tl.store(output + rows[:, None] + value_columns[None, :], mean, mask=mask)


@triton.jit(do_not_specialize_on_alignment=["query_starts", "context_lens"])
def _reduce_kernel(
    output: tl.tensor,
    means: tl.tensor,
    logs: tl.tensor,
    query_starts: tl.tensor,
    context_lens: tl.tensor,
    NUM_HEADS: tl.constexpr,
    VALUE_DIM: tl.constexpr,
    BLOCK_VALUE_DIM: tl.constexpr,
    TILE: tl.constexpr,
    WINDOW: tl.constexpr,
    NUM_SPLITS: tl.constexpr,
) -> None:
    head = tl.program_id(0)
    row = tl.program_id(1)
    token = tl.load(query_starts + row).to(tl.int64)
    next_token = tl.load(query_starts + row + 1)
    context_len = tl.load(context_lens + row)
    if next_token - token != 1:
        return
    splits = tl.arange(0, NUM_SPLITS)
    _, first_tiles, end_tiles = _split(context_len, splits, NUM_SPLITS, TILE, WINDOW)
    used = first_tiles < end_tiles
    columns = tl.arange(0, BLOCK_VALUE_DIM)
    partials = (row.to(tl.int64) * NUM_HEADS + head) * NUM_SPLITS + splits
    logs = tl.load(logs + partials, mask=used, other=NO_SCORE)
    weights = tl.where(used, tl.exp2(logs - tl.max(logs, 0)), 0.0)
    mask = used[:, None] & (columns < VALUE_DIM)[None, :]
    parts = tl.load(means + (partials * VALUE_DIM)[:, None] + columns[None, :], mask, other=0.0)
    weight_sum = tl.sum(weights, 0)
    mean = tl.sum(parts * weights[:, None], 0) / tl.where(weight_sum > 0.0, weight_sum, 1.0)
    tl.store(output + (token * NUM_HEADS + head) * VALUE_DIM + columns, mean, mask=columns < VALUE_DIM)
