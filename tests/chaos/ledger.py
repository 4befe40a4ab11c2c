"""What was asked, how it ended, and what must not have happened."""

from __future__ import annotations

import time
from collections import Counter

from tests.chaos.conversation import End, Reply
from tests.chaos.questions import AnswerBook, Question

_SHOWN = 20
"""Violations that are written out; after those they are only counted."""


class Ledger:
    """One line for each request that was begun, and one for each that has ended."""

    def __init__(self, book: AnswerBook) -> None:
        self.began_s = time.monotonic()
        self.asked = 0
        self.ends: Counter[End] = Counter()
        self.excused: Counter[End] = Counter()
        """Of these, cut off or without an end because the way to the gateway, or the gateway itself, was down."""
        self.disturbances: Counter[str] = Counter()
        self.violations: list[str] = []
        self.num_violations = 0
        self.recent: list[str] = []
        """The last disturbances, with the second that they began in."""
        self._book = book

    def ask(self) -> None:
        """A request begins."""
        self.asked += 1

    def take(self, question: Question, reply: Reply, *, is_excused: bool = False) -> None:
        """A request has ended. `is_excused`: the client's way was down meanwhile."""
        self.ends[reply.end] += 1
        excusable = reply.end in (End.CUT, End.NONE)
        self.excused[reply.end] += is_excused and excusable
        if (excusable and not is_excused) or reply.end is End.FAILED:
            self.violate(f"{question.path} {reply.end} after {reply.took_s:.1f} s: {reply.detail}")
        if fault := self._book.fault_in(question, reply.answer, is_whole=reply.end is End.ANSWERED):
            self.violate(f"{question.path}, {reply.end}: what came back for {question.nonce} {fault}")

    def take_end(self, end: End, *, is_excused: bool = False) -> None:
        """A request has ended whose answer was judged elsewhere."""
        self.ends[end] += 1
        self.excused[end] += is_excused

    def disturb(self, name: str) -> None:
        """A disturbance begins."""
        self.disturbances[name] += 1
        self.recent = [*self.recent[-9:], f"{self.seconds():.1f} {name}"]

    def violate(self, what: str) -> None:
        """This must not have happened."""
        self.num_violations += 1
        if len(self.violations) < _SHOWN:
            self.violations.append(f"at {self.seconds():.1f} s: {what} (after {', '.join(self.recent[-5:])})")

    def seconds(self) -> float:
        """Since it was opened."""
        return time.monotonic() - self.began_s
