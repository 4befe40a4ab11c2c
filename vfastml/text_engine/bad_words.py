"""Words that a text must not have, as tokens."""

from __future__ import annotations

from collections.abc import Callable, Iterable


def barred_tokens(words: Iterable[str], encode: Callable[[str], list[int]]) -> tuple[tuple[int, ...], ...]:
    """Each word in the two ways in which a tokenizer may write it: at the beginning of a text, and after a space."""
    spellings = (spelling for word in words for spelling in (word, f" {word.lstrip()}"))
    found = dict.fromkeys(tuple(encode(spelling)) for spelling in spellings)
    return tuple(tokens for tokens in found if tokens)
