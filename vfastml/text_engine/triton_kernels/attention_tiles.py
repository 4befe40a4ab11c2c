"""What the attention kernels share: the walk over tiles of keys with an online softmax (Milakov and Gimelshein, 2018;
FlashAttention-2, Dao, 2023) in float32. Device code alone.

Triton looks up the annotations of its kernels: they must be names that it knows, so tensors are `tl.tensor` here even
where pointers and numbers are meant.
"""

from __future__ import annotations

import triton
import triton.language as tl

LOG2_E: tl.constexpr = tl.constexpr(1.4426950408889634)
NO_SCORE: tl.constexpr = tl.constexpr(-3.0e38)
"""The highest of no scores. Finite: masked scores are -inf, and -inf minus -inf would be NaN."""


@triton.jit
def attend_to_tiles(
    query: tl.tensor,
    query_positions: tl.tensor,
    highest: tl.tensor,
    weight_sum: tl.tensor,
    weighted: tl.tensor,
    first_tile: tl.tensor,
    end_tile: tl.tensor,
    first_key: tl.tensor,
    end_key: tl.tensor,
    keys: tl.tensor,
    values: tl.tensor,
    table: tl.tensor,
    scale: tl.tensor,
    NUM_KV_HEADS: tl.constexpr,
    KEY_DIM: tl.constexpr,
    VALUE_DIM: tl.constexpr,
    BLOCK_KEY_DIM: tl.constexpr,
    BLOCK_VALUE_DIM: tl.constexpr,
    BLOCK_SIZE: tl.constexpr,
    TILE: tl.constexpr,
    WINDOW: tl.constexpr,
    SOFTCAP: tl.constexpr,
    MASKED: tl.constexpr,
) -> tl.tensor:
    """Continues the softmax of `query` [M, BLOCK_KEY_DIM] over the tiles first_tile:end_tile.

    `keys` and `values` point at the KV head's numbers in slot 0, `table` at the row's first block. The state: the
    highest score [M], the sum of the weights [M], and the weighted sum of the values [M, BLOCK_VALUE_DIM]. Keys outside
    of first_key:end_key are not read. Not MASKED: every query sees every key of these tiles. WINDOW 0: none.
    """
    offsets = tl.arange(0, TILE)
    key_columns = tl.arange(0, BLOCK_KEY_DIM)
    value_columns = tl.arange(0, BLOCK_VALUE_DIM)
    positions = first_tile * TILE + offsets
    blocks = tl.load(table + positions // BLOCK_SIZE, (positions >= first_key) & (positions < end_key), other=0)
    for tile in range(first_tile, end_tile):
        positions = tile * TILE + offsets
        read = (positions >= first_key) & (positions < end_key)
        slots = blocks.to(tl.int64) * BLOCK_SIZE + positions % BLOCK_SIZE
        # The next tile's block numbers, carried over: a load of keys that waits for a load of this same turn would get
        # half of the pipeline's stages.
        ahead = positions + TILE
        blocks = tl.load(table + ahead // BLOCK_SIZE, (ahead >= first_key) & (ahead < end_key), other=0)

        key_rows = keys + (slots * (NUM_KV_HEADS * KEY_DIM))[:, None] + key_columns[None, :]
        key = tl.load(key_rows, read[:, None] & (key_columns < KEY_DIM)[None, :], other=0.0)
        # Scores are in units of log 2, as exp2 wants them.
        scores = tl.dot(query, tl.trans(key), input_precision="ieee")
        if SOFTCAP > 0.0:
            # softcap * tanh(x), written as a sigmoid: Triton's language itself has no tanh.
            scores = tl.sigmoid(scores * (scale * (2.0 / SOFTCAP)))
            scores = scores * (2.0 * SOFTCAP * LOG2_E) - SOFTCAP * LOG2_E
        else:
            scores *= scale * LOG2_E
        if MASKED:
            distance = query_positions[:, None] - positions[None, :]
            seen = distance >= 0
            if WINDOW > 0:
                seen &= distance < WINDOW
            scores = tl.where(seen, scores, float("-inf"))

        new_highest = tl.maximum(highest, tl.max(scores, 1))
        shrunk = tl.exp2(highest - new_highest)
        weights = tl.exp2(scores - new_highest[:, None])
        highest = new_highest
        weight_sum = weight_sum * shrunk + tl.sum(weights, 1)
        value_rows = values + (slots * (NUM_KV_HEADS * VALUE_DIM))[:, None] + value_columns[None, :]
        value = tl.load(value_rows, read[:, None] & (value_columns < VALUE_DIM)[None, :], other=0.0)
        weighted = tl.dot(weights.to(value.dtype), value, weighted * shrunk[:, None], input_precision="ieee")
    return highest, weight_sum, weighted
