"""What is asked: every prompt has a nonce in it, and one right answer, which was taken down before the chaos began."""

from __future__ import annotations

import random
import string
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

_SHARED = "This beginning is shared by many of the prompts, so that they share blocks of the cache as well: "
_LENGTHS = (8, 16, 48, 120)

Answer = Mapping[int, str]
"""The text of each choice, by its index."""


@dataclass(frozen=True)
class Question:
    """A request whose answer is the same whenever it is asked."""

    nonce: str
    path: str
    body: Mapping[str, Any]

    def streamed(self) -> dict[str, Any]:
        """The body that asks for events."""
        return {**self.body, "stream": True}


def questions(chance: random.Random, count: int) -> list[Question]:
    """Completions and chats, greedy and seeded, short and long, with one choice or two."""
    return [_question(chance, number) for number in range(count)]


def nonce(chance: random.Random) -> str:
    """No other question has it."""
    return "".join(chance.choices(string.ascii_letters + string.digits, k=12))


def _question(chance: random.Random, number: int) -> Question:
    word = nonce(chance)
    prompt = f"{chance.choice(('', _SHARED, 4 * _SHARED))}{number} {word}"
    body: dict[str, Any] = {"model": "tiny", "max_tokens": chance.choice(_LENGTHS), "ignore_eos": True}
    body |= chance.choice(({"temperature": 0}, {"temperature": 0}, {"temperature": 0.8, "seed": number, "n": 2}))
    if chance.random() < 0.5:
        return Question(word, "/v1/chat/completions", body | {"messages": [{"role": "user", "content": prompt}]})
    return Question(word, "/v1/completions", body | {"prompt": prompt})


class AnswerBook:
    """The right answers, no two of which are the same: a mix-up would not be seen."""

    def __init__(self, answers: Mapping[str, Answer]) -> None:
        self._answers = dict(answers)

    def fault_in(self, question: Question, answer: Answer, *, is_whole: bool) -> str | None:
        """What is wrong with an answer, or with what came of it before it broke off; None if nothing is."""
        right = self._answers[question.nonce]
        if is_whole and dict(answer) == dict(right):
            return None
        if not is_whole and all(right.get(index, "").startswith(text) for index, text in answer.items()):
            return None
        whose = next((other for other, known in self._answers.items() if dict(known) == dict(answer)), None)
        return f"is the answer to {whose}" if whose else f"is wrong: {dict(answer)} instead of {dict(right)}"
