"""The special tokens of models that were trained to fill in text between two others (Bavarian et al. 2022)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

_SPELLINGS = (
    ("<|fim_prefix|>", "<|fim_suffix|>", "<|fim_middle|>"),  # Qwen2.5-Coder
    ("<fim_prefix>", "<fim_suffix>", "<fim_middle>"),  # StarCoder
    ("<fim-prefix>", "<fim-suffix>", "<fim-middle>"),  # SantaCoder
    ("<｜fim▁begin｜>", "<｜fim▁hole｜>", "<｜fim▁end｜>"),  # DeepSeek-Coder
)


@dataclass(frozen=True, slots=True)
class GapTokens:
    """Before the first text, between the two, and before what is to be generated."""

    first: int
    second: int
    last: int

    def around(self, before: list[int], after: list[int]) -> list[int]:
        """The prompt."""
        return [self.first, *before, self.second, *after, self.last]


def gap_tokens(special_id: Callable[[str], int | None]) -> GapTokens | None:
    """Of a model whose special tokens are these; None if it has no such tokens."""
    for spelling in _SPELLINGS:
        first, second, last = (special_id(text) for text in spelling)
        if first is not None and second is not None and last is not None:
            return GapTokens(first, second, last)
    return None
