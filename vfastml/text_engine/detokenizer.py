"""Tokens become text as they come: never half a character, never a piece of a stop string."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

Decode = Callable[[list[int]], str]
"""Token ids to text, special tokens left out."""

_REPLACEMENT = "\ufffd"
_PRIMER_SIZES = (6, 7, 8, 9, 16, 32, 64)
"""Prompt tokens that the first new one is decoded after, see `_primer`. A character has at most four tokens."""
_MAX_HELD = 4
"""A character has at most four bytes: what is undecodable for longer stays so, and is let go."""
_MAX_UNDECODABLE = 32
"""Tokens without a whole character at their end, of which the first are then no longer decoded again."""


class Detokenizer(Protocol):
    """Text of one growing list of tokens, in constant time for each token.

    The joined pieces equal `decode` of all the tokens (after the prompt's).
    """

    def push(self, token: int) -> str:
        """New text, if any: a character whose bytes have not all come is held back."""

    def flush(self) -> str:
        """What is still held back, when no more tokens come."""


class Vocabulary(Protocol):
    """What the engine needs to know of the model's tokens."""

    def detokenizer(self, prompt: Sequence[int], *, keeps_special: bool = False) -> Detokenizer:
        """Of what comes after these prompt tokens; special tokens have text only with `keeps_special`."""

    def token_bytes(self, token: int) -> bytes:
        """The text of one token, special or not, which need not be whole characters. No text for what is no token."""


class WindowDetokenizer:
    """Detokenizer of any tokenizer: decodes the newest tokens after some that came before them."""

    def __init__(self, decode: Decode, prompt: Sequence[int]) -> None:
        self._decode = decode
        self._tokens = _primer(decode, prompt)
        self._read = 0
        """Tokens whose text has been given out; those before them stay for context."""
        self._context = ""
        self._text = ""
        """Of the tokens after the context."""
        self._given = 0
        """Characters of `_text` that have been given out."""
        self._settle()

    def push(self, token: int) -> str:
        """See Detokenizer."""
        self._tokens.append(token)
        text = self._decode(self._tokens)[len(self._context) :]
        if text == self._text and not self._decode([token, token]):
            del self._tokens[-1]  # a special token: as context it would be an empty one, the start of a text
            return ""
        self._text = text
        if not text.endswith(_REPLACEMENT):
            piece = text[self._given :]
            self._settle()
            return piece
        num_held = len(self._tokens) - self._read
        if num_held <= _MAX_HELD:
            return ""
        # Bytes that form no character. All but the last replacement, which may still become one, are settled.
        piece, self._given = text[self._given : -1], len(text) - 1
        if num_held > _MAX_UNDECODABLE:
            self._forget()
        return piece

    def flush(self) -> str:
        """See Detokenizer."""
        piece = self._text[self._given :]
        self._given = len(self._text)
        return piece

    def _settle(self) -> None:
        """All text has been given out: the newest tokens become the context."""
        self._tokens = self._tokens[self._read :]
        self._context = self._decode(self._tokens)
        self._read = len(self._tokens)
        self._text, self._given = "", 0

    def _forget(self) -> None:
        """Makes context of all tokens but the last three, which may be three bytes of a character."""
        tail = self._tokens[-3:]
        num_settled = len(self._decode(self._tokens[:-3])) - len(self._context)
        text, given = self._text[num_settled:], max(0, self._given - num_settled)
        del self._tokens[-3:]
        self._settle()
        self._tokens.extend(tail)
        self._text, self._given = text, given


def _primer(decode: Decode, prompt: Sequence[int]) -> list[int]:
    """An end of the prompt that has text and begins with a whole character: decoders treat the first token of a text
    specially, and some take one stray byte for a reason to give up the bytes after it."""
    primers = [list(prompt[-size:]) for size in _PRIMER_SIZES]
    return next((primer for primer in primers if _begins_whole(decode(primer))), primers[0])


def _begins_whole(text: str) -> bool:
    return text != "" and not text.startswith(_REPLACEMENT)


class StopStrings:
    """Passes text on, up to the first of the stop strings; holds back what may be the start of one."""

    def __init__(self, stop: Sequence[str]) -> None:
        self._stop = stop
        self._held = ""

    def push(self, text: str, *, honoured: bool = True) -> tuple[str, str | None]:
        """The text to give out, and the stop string that ends it, if one does: the one that is complete first, and of
        several the longest. A stop string that is complete in a text where they are not honoured is plain text."""
        if not self._stop:
            return text, None
        num_old = len(self._held)
        text = self._held + text
        found = [place for stop in self._stop if (place := _find(text, stop, num_old))]
        if honoured and found:
            _, start, stop = min(found)
            self._held = ""
            return text[:start], stop
        held = max(_overlap(text, stop) for stop in self._stop)
        self._held = text[len(text) - held :]
        return text[: len(text) - held], None

    def flush(self) -> str:
        """What was held back, when no more text comes."""
        held, self._held = self._held, ""
        return held


def _find(text: str, stop: str, num_old: int) -> tuple[int, int, str] | None:
    """End and start of the first `stop` that ends behind the first `num_old` characters."""
    start = text.find(stop, max(0, num_old - len(stop) + 1))
    return None if start < 0 else (start + len(stop), start, stop)


def _overlap(text: str, stop: str) -> int:
    """Length of the longest end of `text` that begins `stop`."""
    longest = min(len(text), len(stop) - 1)
    return next((size for size in range(longest, 0, -1) if stop.startswith(text[-size:])), 0)
