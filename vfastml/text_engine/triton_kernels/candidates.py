"""Which tokens of a row may be kept at all: few in what models answer, so that the search for the cut is short."""

import triton
import triton.language as tl

from vfastml.text_engine.triton_kernels.ordered_floats import key_of, value_of
from vfastml.text_engine.triton_kernels.scaled_row import has_top_k, load_scaled

CHUNK = tl.constexpr(4096)
"""Tokens that one program lists the candidates among."""
CAPACITY = tl.constexpr(256)
"""Candidates that are listed of each chunk. A row of which one chunk has more is searched whole."""
ENTRY = tl.constexpr(2 + 256)
"""What is found in a chunk, in int32: its best token, how many candidates it has, and those that are listed."""
TILE = tl.constexpr(2048)
"""Tokens of a row that are looked at together."""
_MARGIN = tl.constexpr(0.5)
"""Of log probabilities: rounding must not leave out a token that counts."""
_COARSE_STEPS = tl.constexpr(20)
_KEY_OF_NONE = tl.constexpr(-2139095040)
"""Of minus infinity."""


@triton.jit
def least_candidate(
    top: tl.tensor, mass: tl.tensor, top_k: tl.tensor, top_p: tl.tensor, log_min_p: tl.tensor, vocab_size: tl.tensor
) -> tl.tensor:
    """A scaled logit that all kept tokens reach, and without top_k all that count for top_p."""
    by_min_p = top + log_min_p
    # All tokens below this one have less than 1 - p together.
    by_top_p = top + tl.log(mass) + tl.log(1.0 - top_p) - tl.log(tl.cast(vocab_size, tl.float32)) - _MARGIN
    by_top_p = tl.where(top_p < 1.0, by_top_p, -float("inf"))
    # With both, top_p is of all that top_k keeps.
    with_top_k = tl.where(top_p < 1.0, -float("inf"), by_min_p)
    return tl.where(has_top_k(top_k, vocab_size), with_top_k, tl.maximum(by_min_p, by_top_p))


@triton.jit
def coarse_kth(values: tl.tensor, k: tl.tensor) -> tl.tensor:
    """A value that at least k of `values` [N] reach, and few more; -inf if so many are not there."""
    high = key_of(tl.max(values, axis=0)) + 1
    low = tl.full([], _KEY_OF_NONE, tl.int64)
    for _ in range(_COARSE_STEPS):
        middle = (low + high) >> 1
        reached = tl.sum((values >= value_of(middle)).to(tl.int32), axis=0) >= k
        low = tl.where(reached, middle, low)
        high = tl.where(reached, high, middle)
    return value_of(low)


@triton.jit
def load_tile(turn: tl.tensor, tiles: tl.tuple, CHUNKS: tl.constexpr) -> tl.tuple:
    """A tile of a row's candidates, or of the whole row, in which each chunk has TILE / CHUNKS places: (scaled logits,
    tokens) [TILE]. What is no token is -inf and vocab_size. `tiles` is what `_choose` says (sampling.py)."""
    is_whole, row, vocab_size, temperature, found, num_chunks = tiles
    WIDTH: tl.constexpr = TILE // CHUNKS
    place = tl.arange(0, TILE)
    chunk = place // WIDTH
    slot = turn * WIDTH + place % WIDTH
    count = tl.load(found + chunk * ENTRY + 1, mask=chunk < num_chunks, other=0)
    is_listed = (slot < tl.minimum(count, CAPACITY)) & (chunk < num_chunks)
    token = tl.load(found + chunk * ENTRY + 2 + slot, mask=is_listed, other=vocab_size)
    token = tl.where(is_whole, tl.minimum(chunk * CHUNK + slot, vocab_size), token)
    return load_scaled(row + token, token < vocab_size, temperature), token
