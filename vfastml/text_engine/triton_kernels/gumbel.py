"""Noise by which the largest of logits + noise is a token drawn by its probability (Gumbel-max).

It is a function of the row's seed and the token alone: Philox (Salmon et al. 2011) gives four numbers for each four
tokens, so that all tokens of a row and a few of them are given the same noise.
"""

import triton
import triton.language as tl

_STEP = tl.constexpr(2.0**-32)
_LAST = tl.constexpr(1.0 - 2.0**-24)
"""The largest float32 below 1."""
_SMALL = tl.constexpr(2.0**-7)


@triton.jit
def gumbel_in_order(seed: tl.tensor, first: tl.tensor, SIZE: tl.constexpr) -> tl.tensor:
    """Noise [SIZE] float32 of the tokens from `first` on; both are multiples of 4."""
    zero, one, two, three = tl.randint4x(seed, first // 4 + tl.arange(0, SIZE // 4))
    return _gumbel(tl.interleave(tl.interleave(zero, two), tl.interleave(one, three)))


@triton.jit
def gumbel_of(seed: tl.tensor, tokens: tl.tensor) -> tl.tensor:
    """Noise float32 of the `tokens` (int32), in their shape."""
    zero, one, two, three = tl.randint4x(seed, tokens // 4)
    turn = tokens % 4
    return _gumbel(tl.where(turn < 2, tl.where(turn == 0, zero, one), tl.where(turn == 2, two, three)))


@triton.jit
def _gumbel(bits: tl.tensor) -> tl.tensor:
    """-log(-log(1 - u)) of u in (0, 1), which is finite: u is at least 2^-33 and at most 1 - 2^-24. The largest noise
    decides, which is that of the smallest u: there float32 is finest."""
    u = tl.minimum((bits.to(tl.uint32, bitcast=True).to(tl.float32) + 0.5) * _STEP, _LAST)
    series = u * (1.0 + u * (0.5 + u * (1.0 / 3.0)))  # 1 - u would round a small u away
    return -tl.log(tl.where(u < _SMALL, series, -tl.log(1.0 - u)))
