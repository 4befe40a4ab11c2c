"""Randomness as a pure function of (seed, choice, place in the text): there is no generator whose state a neighbour in
the batch, a chunk border or a preemption could move, and the same request gives the same text again."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from vfastml.text_engine.draw import Draw

_Words = npt.NDArray[np.uint64]


def draw_bits(draws: Sequence[Draw]) -> _Words:
    """64 random bits for each draw [S], that depend on its seed, choice and place alone (SplitMix64, Steele et al.
    2014, chained)."""
    seeds = _words([draw.sampling.seed for draw in draws])
    choices = _words([draw.choice for draw in draws])
    places = _words([draw.num_generated for draw in draws])
    return _mix(_mix(_mix(seeds) ^ choices) ^ places)


def _words(numbers: list[int]) -> _Words:
    return np.array(numbers, dtype=np.int64).view(np.uint64)


def _mix(words: _Words) -> _Words:
    words = words + np.uint64(0x9E3779B97F4A7C15)
    words = (words ^ (words >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    words = (words ^ (words >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return words ^ (words >> np.uint64(31))
