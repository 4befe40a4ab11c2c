"""Causal attention of rows of several tokens (prompts, and pieces of them) over the paged KV cache, in one launch."""

from __future__ import annotations

import torch
import triton
import triton.language as tl

from vfastml.text_engine.attention.interface import AttentionOptions
from vfastml.text_engine.triton_kernels.attention_tiles import NO_SCORE, attend_to_tiles
from vfastml.text_engine.triton_kernels.launch_parameters import prefill_parameters
from vfastml.text_engine.triton_kernels.paged_rows import PagedRows, layer_constants


def prefill_attention(
    output: torch.Tensor,
    query: torch.Tensor,
    keys: torch.Tensor,
    values: torch.Tensor,
    rows: PagedRows,
    options: AttentionOptions,
) -> None:
    """Writes `output` [T, num_heads, value_dim], contiguous, for the tokens of all rows that have more than one.

    `query` is [T, num_heads, key_dim], each head's numbers side by side; `keys` and `values` are a layer's cache, the
    step's own tokens in it.
    """
    constants = layer_constants(query, keys, values, options)
    heads_per_kv = query.shape[1] // keys.shape[2]
    parameters = prefill_parameters(
        constants["BLOCK_KEY_DIM"], constants["BLOCK_VALUE_DIM"], heads_per_kv, query.dtype, query.device
    )
    num_blocks = len(query) // (parameters.block_m // heads_per_kv) + rows.num_rows
    _prefill_kernel[(num_blocks * keys.shape[2],)](
        output,
        query,
        keys,
        values,
        rows.query_starts,
        rows.context_lens,
        rows.block_starts,
        rows.block_tables,
        rows.num_rows,
        query.stride(0),
        query.stride(1),
        options.scaling,
        **constants,
        BLOCK_M=parameters.block_m,
        TILE=parameters.tile,
        num_warps=parameters.num_warps,
        num_stages=parameters.num_stages,
    )


@triton.jit
def _row_of(block: tl.tensor, query_starts: tl.tensor, num_rows: tl.tensor, BLOCK_TOKENS: tl.constexpr) -> tl.tensor:
    """The row that a query block is of. Row r's first is query_starts[r] // BLOCK_TOKENS + r: each row has as many as
    its tokens need, or one more, which then finds none left."""
    row = 0
    end = num_rows
    while end - row > 1:
        middle = (row + end) // 2
        if tl.load(query_starts + middle) // BLOCK_TOKENS + middle <= block:
            row = middle
        else:
            end = middle
    return row


# Where the arrays of a step lie depends on how long those before them are: whether that is on a multiple of 16 bytes
# must not make another kernel of it.
@triton.jit(
    do_not_specialize=["num_rows"],
    do_not_specialize_on_alignment=["query_starts", "context_lens", "block_starts", "block_tables"],
)
def _prefill_kernel(
    output: tl.tensor,
    query: tl.tensor,
    keys: tl.tensor,
    values: tl.tensor,
    query_starts: tl.tensor,
    context_lens: tl.tensor,
    block_starts: tl.tensor,
    block_tables: tl.tensor,
    num_rows: tl.tensor,
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
) -> None:
    BLOCK_TOKENS: tl.constexpr = BLOCK_M // HEADS_PER_KV
    # A row's last block has the most keys: launched first, it does not run alone at the end.
    program = tl.num_programs(0) - 1 - tl.program_id(0)
    kv_head = program % NUM_KV_HEADS
    block = program // NUM_KV_HEADS
    row = _row_of(block, query_starts, num_rows, BLOCK_TOKENS)
    start = tl.load(query_starts + row)
    num_queries = tl.load(query_starts + row + 1) - start
    first = (block - start // BLOCK_TOKENS - row) * BLOCK_TOKENS
    if num_queries <= 1 or first >= num_queries:
        return

    lanes = tl.arange(0, BLOCK_M)
    tokens = first + lanes // HEADS_PER_KV
    heads = kv_head * HEADS_PER_KV + lanes % HEADS_PER_KV
    real = (lanes < BLOCK_TOKENS * HEADS_PER_KV) & (tokens < num_queries)
    key_columns = tl.arange(0, BLOCK_KEY_DIM)
    query_rows = query + (start + tokens).to(tl.int64) * query_stride + heads * query_head_stride
    query_mask = real[:, None] & (key_columns < KEY_DIM)[None, :]
    queries = tl.load(query_rows[:, None] + key_columns[None, :], query_mask, other=0.0)

    before = tl.load(context_lens + row) - num_queries
    positions = before + tokens
    end_key = before + tl.minimum(first + BLOCK_TOKENS, num_queries)
    first_key = 0
    if WINDOW > 0:
        first_key = tl.maximum(before + first + 1 - WINDOW, 0)
    keys += kv_head * KEY_DIM
    values += kv_head * VALUE_DIM
    table = block_tables + tl.load(block_starts + row)

    highest = tl.full([BLOCK_M], NO_SCORE, dtype=tl.float32)
    weight_sum = tl.full([BLOCK_M], 0.0, dtype=tl.float32)
    weighted = tl.full([BLOCK_M, BLOCK_VALUE_DIM], 0.0, dtype=tl.float32)
    # Three stretches of tiles: those across the window's edge, those that all queries see whole, those across the
    # diagonal.
    start_whole = 0
    end_whole = (before + first + 1) // TILE
    # fmt: off
    if WINDOW > 0:
        start_whole = tl.minimum(tl.cdiv(tl.maximum(end_key - WINDOW, 0), TILE), end_whole)
        highest, weight_sum, weighted = attend_to_tiles(
            queries, positions, highest, weight_sum, weighted, first_key // TILE, start_whole, first_key, end_key,
            keys, values, table, scale, NUM_KV_HEADS, KEY_DIM, VALUE_DIM, BLOCK_KEY_DIM, BLOCK_VALUE_DIM, BLOCK_SIZE,
            TILE, WINDOW, SOFTCAP, True,
        )
    highest, weight_sum, weighted = attend_to_tiles(
        queries, positions, highest, weight_sum, weighted, start_whole, end_whole, first_key, end_key,
        keys, values, table, scale, NUM_KV_HEADS, KEY_DIM, VALUE_DIM, BLOCK_KEY_DIM, BLOCK_VALUE_DIM, BLOCK_SIZE,
        TILE, WINDOW, SOFTCAP, False,
    )
    highest, weight_sum, weighted = attend_to_tiles(
        queries, positions, highest, weight_sum, weighted, end_whole, tl.cdiv(end_key, TILE), first_key, end_key,
        keys, values, table, scale, NUM_KV_HEADS, KEY_DIM, VALUE_DIM, BLOCK_KEY_DIM, BLOCK_VALUE_DIM, BLOCK_SIZE,
        TILE, WINDOW, SOFTCAP, True,
    )
    # fmt: on

    value_columns = tl.arange(0, BLOCK_VALUE_DIM)
    output_rows = ((start + tokens).to(tl.int64) * (NUM_KV_HEADS * HEADS_PER_KV) + heads) * VALUE_DIM
    mask = real[:, None] & (value_columns < VALUE_DIM)[None, :]
    mean = weighted / tl.where(weight_sum > 0.0, weight_sum, 1.0)[:, None]
    tl.store(output + output_rows[:, None] + value_columns[None, :], mean, mask=mask)
