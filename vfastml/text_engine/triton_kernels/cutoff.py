"""The least scaled logit of a row that is kept, found without sorting: several pivots for each pass over the row.

What is kept is what truncation.py keeps: top_k, top_p of what that leaves, min_p; equals of the last one stay.
"""

import triton
import triton.language as tl

from vfastml.text_engine.triton_kernels.candidates import load_tile
from vfastml.text_engine.triton_kernels.ordered_floats import LARGEST, key_of, value_of
from vfastml.text_engine.triton_kernels.scaled_row import has_top_k, weight

_PIVOTS = tl.constexpr(8)
_HALF = tl.constexpr(4)
_MOST_PASSES = tl.constexpr(40)
"""Never reached: a pass leaves at most a fifth of the 2^32 keys, or one less where they are few."""


@triton.jit
def least_kept(
    top: tl.tensor,
    mass: tl.tensor,
    least: tl.tensor,
    top_k: tl.tensor,
    top_p: tl.tensor,
    log_min_p: tl.tensor,
    vocab_size: tl.tensor,
    turns: tl.tensor,
    tiles: tl.tuple,
    CHUNKS: tl.constexpr,
) -> tl.tensor:
    """Of a row whose largest scaled logit is `top`, whose weights sum up to `mass`, and whose `turns` tiles
    (candidates.py) have all tokens from `least` on."""
    low = key_of(tl.maximum(least, -LARGEST))
    if has_top_k(top_k, vocab_size):
        low = _search(False, top_k.to(tl.float32), low, top, turns, tiles, CHUNKS)
    if top_p < 1.0:
        if has_top_k(top_k, vocab_size):
            mass = _mass_from(value_of(low), top, turns, tiles, CHUNKS)
        low = _search(True, top_p * mass, low, top, turns, tiles, CHUNKS)
    return tl.maximum(value_of(low), top + log_min_p)


@triton.jit
def _search(
    BY_MASS: tl.constexpr,
    target: tl.tensor,
    low: tl.tensor,
    top: tl.tensor,
    turns: tl.tensor,
    tiles: tl.tuple,
    CHUNKS: tl.constexpr,
) -> tl.tensor:
    """The key of the largest value from `low` on so that what is not below it reaches `target`; `low` if none does."""
    high = key_of(top) + 1
    passes = 0
    while (high - low > 1) & (passes < _MOST_PASSES):
        pivots = _pivots_between(low, high)
        measures, lowest, highest = _measure(
            BY_MASS, value_of(pivots), value_of(low), value_of(high), top, turns, tiles, CHUNKS
        )
        reached = measures >= target
        new_low = tl.max(tl.where(reached, pivots, low), axis=0)
        new_high = tl.min(tl.where(reached, high, pivots), axis=0)
        is_empty = lowest > highest
        low = tl.where(is_empty, new_low, tl.maximum(new_low, key_of(lowest)))
        high = tl.where(is_empty, new_low + 1, tl.minimum(new_high, key_of(highest) + 1))
        passes += 1
    return low


@triton.jit
def _pivots_between(low: tl.tensor, high: tl.tensor) -> tl.tensor:
    """Keys [8] above `low` and below `high`: the one half evenly by key, which ends the search of any numbers soon, the
    other evenly by value, which ends that of the usual ones sooner."""
    place = tl.arange(0, _PIVOTS)
    part = place % _HALF + 1
    by_key = low + (high - low) * part // (_HALF + 1)
    share = part.to(tl.float32) / (_HALF + 1)
    by_value = key_of(value_of(low) * (1.0 - share) + value_of(high - 1) * share)
    return tl.minimum(tl.maximum(tl.where(place < _HALF, by_key, by_value), low + 1), high - 1)


@triton.jit
def _measure(
    BY_MASS: tl.constexpr,
    pivots: tl.tensor,
    low: tl.tensor,
    high: tl.tensor,
    top: tl.tensor,
    turns: tl.tensor,
    tiles: tl.tuple,
    CHUNKS: tl.constexpr,
) -> tl.tuple:
    """How many tokens, or which sum of weights, are not below each of the values `pivots` [8]; and the least and the
    largest value from `low` on and below `high`. Measures fall as pivots rise, rounding included."""
    measures = tl.zeros([_PIVOTS], tl.float32)
    lowest = float("inf")
    highest = -float("inf")
    for turn in range(turns):
        value, _ = load_tile(turn, tiles, CHUNKS)
        amount = weight(value, top) if BY_MASS else tl.full(value.shape, 1.0, tl.float32)
        measures += tl.sum(tl.where(value[None, :] >= pivots[:, None], amount[None, :], 0.0), axis=1)
        inside = (value >= low) & (value < high)
        lowest = tl.minimum(lowest, tl.min(tl.where(inside, value, float("inf")), axis=0))
        highest = tl.maximum(highest, tl.max(tl.where(inside, value, -float("inf")), axis=0))
    return measures, lowest, highest


@triton.jit
def _mass_from(low: tl.tensor, top: tl.tensor, turns: tl.tensor, tiles: tl.tuple, CHUNKS: tl.constexpr) -> tl.tensor:
    """The sum of the weights of what is not below `low`."""
    mass = 0.0
    for turn in range(turns):
        value, _ = load_tile(turn, tiles, CHUNKS)
        mass += tl.sum(tl.where(value >= low, weight(value, top), 0.0), axis=0)
    return mass
