"""Tokens become text as they come: never half a character, never a piece of a stop string."""

from __future__ import annotations

from collections.abc import Callable, Sequence

Decode = Callable[[list[int]], str]
"""Token ids to text, special tokens left out."""

_REPLACEMENT = "\ufffd"
_PRIMING = 6
"""Prompt tokens that the first new one is decoded after: decoders treat the first token of a text specially."""
_MAX_HELD = 4
"""A character has at most four bytes: what is undecodable for longer stays so, and is let go."""


class Detokenizer:
    """Text of one growing list of tokens, in constant time for each token.

    The joined pieces equal `decode` of all the tokens (after the prompt's).
    """

    def __init__(self, decode: Decode, prompt: Sequence[int]) -> None:
        self._decode = decode
        self._tokens = list(prompt[-_PRIMING:])
        self._read = len(self._tokens)
        """Tokens whose text has been given out; those before them stay for context."""
        self._context = decode(self._tokens)
        self._given = 0
        """Characters given out beyond the context."""

    def push(self, token: int) -> str:
        """New text, if any: a character whose bytes have not all come is held back."""
        self._tokens.append(token)
        text = self._decode(self._tokens)[len(self._context) :]
        if text.endswith(_REPLACEMENT):
            if len(self._tokens) - self._read <= _MAX_HELD:
                return ""
            # Bytes that form no character. All but the last replacement, which may still become one, are settled.
            settled = text[:-1]
            piece, self._given = settled[self._given :], len(settled)
            if len(self._tokens) - self._read > 8 * _MAX_HELD:
                self._settle(text)
                return piece + _REPLACEMENT
            return piece
        piece = text[self._given :]
        self._settle(text)
        return piece

    def flush(self) -> str:
        """What is still held back, when no more tokens come."""
        text = self._decode(self._tokens)[len(self._context) :]
        piece = text[self._given :]
        self._given = len(text)
        return piece

    def _settle(self, text: str) -> None:
        self._tokens = self._tokens[self._read :]
        self._context = self._decode(self._tokens)
        self._read = len(self._tokens)
        self._given = 0


class StopStrings:
    """Passes text on, up to the first of the stop strings; holds back what may be the start of one."""

    def __init__(self, stop: Sequence[str]) -> None:
        self._stop = stop
        self._held = ""

    def push(self, text: str) -> tuple[str, str | None]:
        """The text to give out, and the stop string that ends it, if one does."""
        if not self._stop:
            return text, None
        text = self._held + text
        found = [(text.find(stop), stop) for stop in self._stop if stop in text]
        if found:
            end, stop = min(found, key=lambda place: place[0])
            self._held = ""
            return text[:end], stop
        held = max(_overlap(text, stop) for stop in self._stop)
        self._held = text[len(text) - held :]
        return text[: len(text) - held], None

    def flush(self) -> str:
        """What was held back, when no more text comes."""
        held, self._held = self._held, ""
        return held


def _overlap(text: str, stop: str) -> int:
    """Length of the longest end of `text` that begins `stop`."""
    longest = min(len(text), len(stop) - 1)
    return next((size for size in range(longest, 0, -1) if stop.startswith(text[-size:])), 0)
