"""Text of byte-level tokenizers, whose tokens are pieces of UTF-8: each is looked up, and only split characters are
put together."""

from __future__ import annotations

from codecs import utf_8_decode
from collections.abc import Sequence

from tokenizers import Tokenizer, decoders
from transformers.convert_slow_tokenizer import bytes_to_unicode

_BYTE_OF = {char: byte for byte, char in bytes_to_unicode().items()}
"""The alphabet in which byte-level vocabularies spell bytes."""
_REPLACEMENT = "\ufffd"
_MAX_BEGUN = 3
"""Bytes of a character that is not yet whole."""


class TokenPieces(dict[int, str | bytes]):
    """What each token stands for, found when it is first asked for: text where it is whole characters, else bytes. No
    text for special tokens and for numbers that are no token, which `decode` leaves out."""

    def __init__(self, backend: Tokenizer) -> None:
        super().__init__()
        self._backend = backend

    def __missing__(self, token: int) -> str | bytes:
        text: str = self._backend.decode([token], skip_special_tokens=True)
        self[token] = piece = self._spelled(token) if _REPLACEMENT in text else text
        return piece

    def as_bytes(self, token: int) -> bytes:
        """The same in one form."""
        piece = self[token]
        return piece.encode() if isinstance(piece, str) else piece

    def _spelled(self, token: int) -> bytes:
        """An added token need not be in the alphabet; then it stands for itself."""
        spelling = self._backend.id_to_token(token) or ""
        if _BYTE_OF.keys() >= set(spelling):
            return bytes(_BYTE_OF[char] for char in spelling)
        return spelling.encode()


def token_pieces(backend: Tokenizer) -> TokenPieces | None:
    """Of a tokenizer whose text is its tokens' bytes, one after the other; None for any other."""
    return TokenPieces(backend) if isinstance(backend.decoder, decoders.ByteLevel) else None


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
