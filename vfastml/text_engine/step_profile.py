"""How long an engine's steps take on this machine: measured once, then a value to decide from."""

from __future__ import annotations

import bisect
import math
from dataclasses import dataclass
from itertools import pairwise

CONTEXT = 128
"""Tokens that a sequence has behind it when its next one is measured, or all that the model takes: with a longer text
a step takes longer."""


@dataclass(frozen=True, slots=True)
class StepTime:
    """One step as it was measured."""

    tokens: int
    """Computed in the step."""
    seconds: float

    def __post_init__(self) -> None:
        """Raises ValueError for what no clock can have measured."""
        if not (self.tokens > 0 and 0 < self.seconds < math.inf):
            raise ValueError("a step has tokens and takes time")

    @property
    def tokens_per_s(self) -> float:
        """How many come of it while nothing else runs."""
        return self.tokens / self.seconds


@dataclass(frozen=True, slots=True)
class StepProfile:
    """Two series of steps, each with at least one, in the order of their tokens."""

    decode: tuple[StepTime, ...]
    """One token for each of so many sequences, at CONTEXT tokens of context."""
    prefill: tuple[StepTime, ...]
    """So many tokens of prompts."""

    def __post_init__(self) -> None:
        """Raises ValueError for series that are empty or out of order."""
        for series in (self.decode, self.prefill):
            if not series or any(one.tokens >= next_.tokens for one, next_ in pairwise(series)):
                raise ValueError("a series has steps of growing size")

    def decode_s(self, num_seqs: int) -> float:
        """Seconds of a step in which so many sequences get a token each, at CONTEXT tokens of context."""
        return _seconds(self.decode, num_seqs)

    def prefill_s(self, num_tokens: int) -> float:
        """Seconds of a step that computes so many tokens of prompts and nothing else."""
        return _seconds(self.prefill, num_tokens)

    def mixed_s(self, num_seqs: int, num_prompt_tokens: int) -> float:
        """Seconds of a step that has both: the sequences' own, and for each token of a prompt what one token more costs
        in a prefill."""
        return self.decode_s(num_seqs) + num_prompt_tokens * self._s_per_prompt_token

    @property
    def _s_per_prompt_token(self) -> float:
        first, last = self.prefill[0], self.prefill[-1]
        if first is last:
            return first.seconds / first.tokens
        return max(0.0, (last.seconds - first.seconds) / (last.tokens - first.tokens))


def _seconds(series: tuple[StepTime, ...], tokens: int) -> float:
    """Before the first as long as that, then on the line between the two neighbours, and in proportion to the last."""
    place = bisect.bisect_left(series, tokens, key=lambda step: step.tokens)
    if place == 0:
        return series[0].seconds
    before = series[place - 1]
    if place == len(series):
        return before.seconds * tokens / before.tokens
    after = series[place]
    share = (tokens - before.tokens) / (after.tokens - before.tokens)
    return before.seconds + share * (after.seconds - before.seconds)
