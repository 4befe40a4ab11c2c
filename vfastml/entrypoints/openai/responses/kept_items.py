"""Items as they are kept: JSON, of which no more is decoded than is looked at."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec


class _Named(msgspec.Struct):
    id: str


_LIST = msgspec.json.Decoder(list[msgspec.Raw])
_NAMED = msgspec.json.Decoder(_Named)


def items_of(turns: Iterable[bytes]) -> list[msgspec.Raw]:
    """Of all the turns, one list for each."""
    return [item for turn in turns for item in _LIST.decode(turn)]


def id_of(item: msgspec.Raw) -> str:
    """Its name in its conversation."""
    return _NAMED.decode(item).id
