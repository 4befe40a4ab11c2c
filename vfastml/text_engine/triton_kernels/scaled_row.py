"""What one row asks for, and its logits over its temperature, as the sampling kernels see them."""

import triton
import triton.language as tl

from vfastml.text_engine.triton_kernels.ordered_floats import LARGEST

_LOG2E = tl.constexpr(1.4426950408889634)
_LEAST_TEMPERATURE = tl.constexpr(1e-5)
"""Of a random choice, as in sampling.py."""


@triton.jit
def is_random(temperature: tl.tensor) -> tl.tensor:
    """Whether a row of this temperature is drawn from; what is not a number is not."""
    return temperature >= _LEAST_TEMPERATURE


@triton.jit
def is_cut(
    temperature: tl.tensor, top_k: tl.tensor, top_p: tl.tensor, log_min_p: tl.tensor, vocab_size: tl.tensor
) -> tl.tensor:
    """Whether a row keeps only some of its tokens."""
    some = has_top_k(top_k, vocab_size) | (top_p < 1.0) | (log_min_p > -float("inf"))
    return some & is_random(temperature)


@triton.jit
def has_top_k(top_k: tl.tensor, vocab_size: tl.tensor) -> tl.tensor:
    """Whether this limit is one."""
    return (top_k > 0) & (top_k < vocab_size)


@triton.jit
def load_scaled(logits: tl.tensor, mask: tl.tensor, temperature: tl.tensor) -> tl.tensor:
    """The logits at the pointers `logits`, over the temperature if the row is drawn from; float32, none above LARGEST,
    -inf where `mask` has none and for what is not a number."""
    divisor = tl.where(is_random(temperature), temperature, 1.0)
    value = tl.div_rn(tl.load(logits, mask=mask, other=-float("inf")).to(tl.float32), divisor)
    return tl.where(value > -float("inf"), tl.where(value > LARGEST, LARGEST, value), -float("inf"))


@triton.jit
def weight(value: tl.tensor, top: tl.tensor) -> tl.tensor:
    """The probability of a scaled logit, that of `top` being 1."""
    return tl.exp2((value - top) * _LOG2E)


@triton.jit
def top_and_mass(maxima: tl.tensor, masses: tl.tensor, mask: tl.tensor) -> tl.tuple:
    """Of a row, from its chunks': the largest scaled logit (finite), and the sum of all weights."""
    tops = tl.load(maxima, mask=mask, other=-float("inf"))
    top = tl.maximum(tl.max(tops, axis=0), -LARGEST)
    return top, tl.sum(tl.load(masses, mask=mask, other=0.0) * weight(tops, top), axis=0)


@triton.jit
def first_best(score: tl.tensor, token: tl.tensor) -> tl.tuple:
    """The largest score, and the least token that has it."""
    best = tl.max(score, axis=0)
    return best, tl.min(tl.where(score == best, token, 2147483647), axis=0)
