"""Short questions as people ask them, each with a follow-up: prompts of the kind that MT-Bench made usual."""

from __future__ import annotations

import random
from dataclasses import dataclass
from pathlib import Path

from benchmarks.prompts import LengthFit, Lengths, Prompt, random_text


@dataclass(frozen=True)
class Question:
    """Both turns of it."""

    category: str
    first: str
    follow_up: str


def read_questions() -> list[Question]:
    """All of questions.txt: a line for each, `first | follow-up`, below its category."""
    found, category = [], ""
    for line in (Path(__file__).parent / "questions.txt").read_text().splitlines():
        if line.startswith("# "):
            category = line.removeprefix("# ")
        else:
            first, _, follow_up = line.partition(" | ")
            found.append(Question(category, first, follow_up))
    return found


@dataclass(frozen=True)
class QuestionPrompts:
    """A question and its follow-up in one message, below a line of random words: a run may have more requests than
    there are questions, and a prefix cache must not know one that comes again. The length of the input is theirs."""

    lengths: Lengths

    def prompts(self, count: int, fit: LengthFit, seed: int) -> list[Prompt]:
        """See Workload. Each question once before any comes again."""
        rng = random.Random(seed)
        questions = read_questions()
        order: list[Question] = []
        while len(order) < count:
            order += rng.sample(questions, len(questions))
        return [self._prompt(question, rng) for question in order[:count]]

    def _prompt(self, question: Question, rng: random.Random) -> Prompt:
        text = f"About: {random_text(3, rng)}\n\n{question.first}\n\nThen: {question.follow_up}"
        return Prompt(text, self.lengths.draw_output(rng))
