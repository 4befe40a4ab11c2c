"""Runs a parser over a text that comes in pieces."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from vfastml.text_engine.output_parsers.output_parser import OutputParser, Parsed


@dataclass(frozen=True)
class Found:
    """What clients have in the end."""

    text: str
    reasoning: str
    calls: tuple[tuple[str, str], ...]
    """Name and arguments of each."""


def found(parser: OutputParser, pieces: Iterator[str] | list[str]) -> Found:
    """Joins what it gives out, and checks that clients can do so too: only a call's first piece has its id and name."""
    whole = Parsed()
    for piece in pieces:
        whole += parser.push(piece)
    whole += parser.flush()
    calls: dict[int, list[str]] = {}
    ids = set()
    for piece in whole.tool_calls:
        assert bool(piece.id) == bool(piece.name) == (piece.index not in calls)
        if piece.id:
            assert piece.index == len(calls)
            assert piece.id not in ids
            ids.add(piece.id)
        call = calls.setdefault(piece.index, [piece.name, ""])
        call[1] += piece.arguments
    return Found(whole.text, whole.reasoning, tuple((name, arguments) for name, arguments in calls.values()))


def cut(text: str, seed: int) -> Iterator[str]:
    """The text in pieces of random lengths."""
    lengths = random.Random(seed)
    while text:
        length = lengths.choice((1, 1, 2, 3, 5, 8, 30))
        yield text[:length]
        text = text[length:]


def found_however_cut(new_parser: Callable[[], OutputParser], text: str) -> Found:
    """The same for many cuts."""
    whole = found(new_parser(), [text])
    assert found(new_parser(), list(text)) == whole
    for seed in range(60):
        assert found(new_parser(), cut(text, seed)) == whole, seed
    return whole
