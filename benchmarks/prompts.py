"""Prompts of a wanted length, new ones in every run, so that no prefix cache helps unless it is meant to."""

from __future__ import annotations

import random
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

WORDS = (Path(__file__).parent / "words.txt").read_text().split()
"""Common English words: in most vocabularies each is one token."""


@dataclass(frozen=True)
class Prompt:
    """One request's task."""

    text: str
    output_tokens: int


@dataclass(frozen=True)
class LengthFit:
    """How many tokens a server counts for a number of words: `fixed + per_word * words`."""

    fixed: float = 0.0
    """Of a chat template, and of special tokens."""
    per_word: float = 1.0

    @classmethod
    def through(cls, first: tuple[int, int], second: tuple[int, int]) -> LengthFit:
        """The line through two points (words, tokens)."""
        per_word = (second[1] - first[1]) / (second[0] - first[0])
        return cls(first[1] - per_word * first[0], per_word) if per_word > 0 else cls()

    def words(self, tokens: int) -> int:
        """For about that many tokens; at least one."""
        return max(1, round((tokens - self.fixed) / self.per_word))


@dataclass(frozen=True)
class Lengths:
    """In tokens, uniform in `tokens * (1 - range_ratio)` to `tokens * (1 + range_ratio)`."""

    input_tokens: int
    output_tokens: int
    range_ratio: float

    def draw_input(self, rng: random.Random) -> int:
        """Of one prompt."""
        return self._draw(self.input_tokens, rng)

    def draw_output(self, rng: random.Random) -> int:
        """Of one answer."""
        return self._draw(self.output_tokens, rng)

    def _draw(self, tokens: int, rng: random.Random) -> int:
        low, high = round(tokens * (1 - self.range_ratio)), round(tokens * (1 + self.range_ratio))
        return rng.randint(max(1, low), max(1, high))


class Workload(Protocol):
    """Where prompts come from."""

    def prompts(self, count: int, fit: LengthFit, seed: int) -> list[Prompt]:
        """The same ones for the same seed, and others for another one."""


@dataclass(frozen=True)
class RandomPrompts:
    """Words drawn independently: no two prompts have a beginning in common."""

    lengths: Lengths

    def prompts(self, count: int, fit: LengthFit, seed: int) -> list[Prompt]:
        """See Workload."""
        rng = random.Random(seed)
        return [self._prompt(fit, rng) for _ in range(count)]

    def _prompt(self, fit: LengthFit, rng: random.Random) -> Prompt:
        words = fit.words(self.lengths.draw_input(rng))
        return Prompt(random_text(words, rng), self.lengths.draw_output(rng))


@dataclass(frozen=True)
class SharedPrefixPrompts:
    """Random words, of which the first ones are those of a group: `share` of the mean prompt. Only the rest varies in
    length."""

    lengths: Lengths
    share: float
    num_groups: int

    def prompts(self, count: int, fit: LengthFit, seed: int) -> list[Prompt]:
        """See Workload; the prefixes are new with each seed too."""
        rng = random.Random(seed)
        words = round(self.share * fit.words(self.lengths.input_tokens))
        prefixes = [random_text(words, rng) for _ in range(self.num_groups)]
        return [self._prompt(rng.choice(prefixes), fit, rng) for _ in range(count)]

    def _prompt(self, prefix: str, fit: LengthFit, rng: random.Random) -> Prompt:
        own_tokens = (1 - self.share) * self.lengths.draw_input(rng)
        own = random_text(max(1, round(own_tokens / fit.per_word)), rng)
        return Prompt(f"{prefix} {own}", self.lengths.draw_output(rng))


def random_text(words: int, rng: random.Random) -> str:
    """That many words, drawn independently."""
    return " ".join(rng.choices(WORDS, k=words))
