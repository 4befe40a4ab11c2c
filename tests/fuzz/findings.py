"""What a run of the program has found to be wrong, and what it has counted."""

from __future__ import annotations

from collections import Counter

_MOST_KEPT = 50
_MOST_SHOWN_BYTES = 300


class Findings:
    """`wrong` has a sentence for each violation; with a case's number it can be sent again."""

    def __init__(self) -> None:
        self.wrong: list[str] = []
        self.num_wrong = 0
        self.counts: Counter[tuple[str, str]] = Counter()
        """By kind of case and what came of it."""

    def note(self, kind: str, outcome: str) -> None:
        """One case is over."""
        self.counts[kind, outcome] += 1

    def add(self, sentence: str, number: int | None = None, data: bytes = b"") -> None:
        """Something that must not be. The first ones are kept."""
        self.num_wrong += 1
        if len(self.wrong) < _MOST_KEPT:
            case = "" if number is None else f" [case {number}: {data[:_MOST_SHOWN_BYTES]!r}]"
            self.wrong.append(sentence + case)
