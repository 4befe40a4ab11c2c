"""The bits are SplitMix64's, and stay what they are: a seed gives the same text after an update."""

from __future__ import annotations

import random

from vfastml.text_engine.draw import Draw
from vfastml.text_engine.draw_bits import draw_bits
from vfastml.text_engine.sampling import Sampling

MASK = 2**64 - 1


def mixed(value: int) -> int:
    value = (value + 0x9E3779B97F4A7C15) & MASK
    value = ((value ^ (value >> 30)) * 0xBF58476D1CE4E5B9) & MASK
    value = ((value ^ (value >> 27)) * 0x94D049BB133111EB) & MASK
    return value ^ (value >> 31)


def test_splitmix_of_zero_is_the_published_one() -> None:
    assert mixed(0) == 0xE220A8397B1DCDAF


def test_bits_are_those_of_chained_splitmix() -> None:
    rng = random.Random(0)
    seeds = [0, -1, 2**63 - 1, -(2**63), *(rng.randrange(-(2**63), 2**63) for _ in range(50))]
    draws = [
        Draw(0, Sampling(max_tokens=1, seed=seed), choice=rng.randrange(9), num_generated=rng.randrange(10**6))
        for seed in seeds
    ]
    expected = [mixed(mixed(mixed(d.sampling.seed) ^ d.choice) ^ d.num_generated) for d in draws]
    assert draw_bits(draws).tolist() == expected


def test_no_draws_no_bits() -> None:
    assert draw_bits([]).tolist() == []
