"""A constraint that needs no grammar."""

from __future__ import annotations

from vfastml.text_engine.constraints.token_matcher import TokenMask


class OneOf:
    """The text is one of a few lists of tokens."""

    def __init__(self, texts: list[list[int]], length: int = 0) -> None:
        self.texts = texts
        self.length = length

    @property
    def is_over(self) -> bool:
        return self.texts == [text for text in self.texts if len(text) == self.length]

    @property
    def allowed(self) -> list[int]:
        return sorted({text[self.length] for text in self.texts if len(text) > self.length})

    def accept(self, token: int) -> None:
        self.texts = [text for text in self.texts if text[self.length : self.length + 1] == [token]]
        assert self.texts, "a token that is not allowed"
        self.length += 1

    def fork(self) -> OneOf:
        return OneOf(list(self.texts), self.length)

    def fill(self, mask: TokenMask) -> None:
        bits = mask.view("uint8")
        bits[:] = 0
        for token in self.allowed:
            bits[token // 8] |= 1 << token % 8
