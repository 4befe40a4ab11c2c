"""The text of single tokens, as bytes: a token need not be whole characters."""

from __future__ import annotations

import re

from tokenizers import Tokenizer, decoders
from transformers.convert_slow_tokenizer import bytes_to_unicode

_BYTE_OF = {char: byte for byte, char in bytes_to_unicode().items()}
"""The alphabet in which byte-level vocabularies spell bytes."""
_BYTE_TOKEN = re.compile(r"<0x([0-9A-F]{2})>")
"""How other vocabularies spell bytes that are no whole characters."""
_SPACE = "\u2581"
"""How they spell a space."""


class TokenBytes(dict[int, bytes]):
    """What each token stands for, special or not, found when it is first asked for; nothing for what is no token."""

    def __init__(self, backend: Tokenizer) -> None:
        super().__init__()
        self._backend = backend
        self._spell = spelled_bytes if isinstance(backend.decoder, decoders.ByteLevel) else _plain_bytes

    def __missing__(self, token: int) -> bytes:
        self[token] = spelled = self._spell(self._backend.id_to_token(token) or "")
        return spelled


def spelled_bytes(spelling: str) -> bytes:
    """Of a token of a byte-level vocabulary. An added token need not be in the alphabet; then it stands for itself."""
    if _BYTE_OF.keys() >= set(spelling):
        return bytes(_BYTE_OF[char] for char in spelling)
    return spelling.encode()


def _plain_bytes(spelling: str) -> bytes:
    byte = _BYTE_TOKEN.fullmatch(spelling)
    return bytes([int(byte[1], 16)]) if byte else spelling.replace(_SPACE, " ").encode()
