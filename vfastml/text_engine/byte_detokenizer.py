"""Text of byte-level tokenizers, whose tokens are pieces of UTF-8: each is looked up, and only split characters are
put together."""

from __future__ import annotations

from codecs import utf_8_decode
from collections.abc import Sequence

from tokenizers import Tokenizer, decoders

from vfastml.text_engine.token_bytes import spelled_bytes

_REPLACEMENT = "\ufffd"
_MAX_BEGUN = 3
"""Bytes of a character that is not yet whole."""


class TokenPieces(dict[int, str | bytes]):
    """What each token stands for, found when it is first asked for: text where it is whole characters, else bytes. No
    text for numbers that are no token, and none for special tokens but with `keeps_special`, as `decode` has it."""

    def __init__(self, backend: Tokenizer, *, keeps_special: bool = False) -> None:
        super().__init__()
        self._backend = backend
        self._skips_special = not keeps_special

    def __missing__(self, token: int) -> str | bytes:
        text: str = self._backend.decode([token], skip_special_tokens=self._skips_special)
        self[token] = piece = spelled_bytes(self._backend.id_to_token(token) or "") if _REPLACEMENT in text else text
        return piece

    def as_bytes(self, token: int) -> bytes:
        """The same in one form."""
        piece = self[token]
        return piece.encode() if isinstance(piece, str) else piece


def token_pieces(backend: Tokenizer, *, keeps_special: bool = False) -> TokenPieces | None:
    """Of a tokenizer whose text is its tokens' bytes, one after the other; None for any other."""
    return (
        TokenPieces(backend, keeps_special=keeps_special) if isinstance(backend.decoder, decoders.ByteLevel) else None
    )


class ByteDetokenizer:
    """Detokenizer of tokens that are bytes. U+FFFD stands for what is no UTF-8, as `decode` has it."""

    def __init__(self, pieces: TokenPieces, prompt: Sequence[int]) -> None:
        self._pieces = pieces
        self._begun = _begun_character(pieces, prompt)
        """Bytes of a character whose others may still come."""
        self._not_ours = len(self._begun.decode(errors="replace"))
        """Characters that they would be without the others: those of the prompt belong to its text."""

    def push(self, token: int) -> str:
        """See Detokenizer."""
        piece = self._pieces[token]
        if isinstance(piece, str):
            if not self._begun:
                return piece
            piece = piece.encode()
        data = self._begun + piece
        text, length = utf_8_decode(data, "replace", False)
        self._begun = data[length:]
        return self._own(text)

    def flush(self) -> str:
        """See Detokenizer."""
        rest, self._begun = self._begun, b""
        return self._own(rest.decode(errors="replace"))

    def _own(self, text: str) -> str:
        skipped = min(self._not_ours, len(text))
        self._not_ours -= skipped
        return text[skipped:]


def _begun_character(pieces: TokenPieces, prompt: Sequence[int]) -> bytes:
    """The bytes at the prompt's end that need others to become a character."""
    end = b""
    for token in reversed(prompt):
        end = pieces.as_bytes(token) + end
        if len(end) >= _MAX_BEGUN:
            break
    return end[utf_8_decode(end, "replace", False)[1] :]
