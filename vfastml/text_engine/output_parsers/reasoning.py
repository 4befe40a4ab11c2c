"""Reasoning that stands before an answer, between two markers."""

from __future__ import annotations

from dataclasses import dataclass

from vfastml.text_engine.output_parsers.markers import (
    MAX_SPACE,
    first_marker,
    may_become,
    split_at_hold,
    without_end_space,
)
from vfastml.text_engine.output_parsers.output_parser import OutputParser, Parsed


@dataclass(frozen=True, slots=True)
class ReasoningMarkers:
    """What a model writes around its reasoning."""

    name: str
    begin: str
    end: str

    def begun_in(self, text: str) -> bool | None:
        """Whether the text, which nothing comes before, begins with reasoning. None: more of it has to come."""
        begun = text.lstrip()
        if len(text) - len(begun) > MAX_SPACE:
            return False
        if begun.startswith(self.begin):
            return True
        return None if may_become(begun, [self.begin]) else False


REASONING: dict[str, ReasoningMarkers] = {
    "think": ReasoningMarkers("think", "<think>", "</think>"),
    "mistral": ReasoningMarkers("mistral", "[THINK]", "[/THINK]"),
}
"""By the names that an operator may give (`--reasoning-parser`)."""


def reasoning_of(template: str) -> ReasoningMarkers | None:
    """What the chat template shows of how the model reasons."""
    return next((markers for markers in REASONING.values() if markers.end in template), None)


class ReasoningParser:
    """OutputParser: what stands between the markers is reasoning, without the white space around it, and what comes
    after them is for the parser of the answer. A text that does not begin with reasoning has none."""

    def __init__(self, markers: ReasoningMarkers, answer: OutputParser, *, has_begun: bool) -> None:
        """`has_begun`: the prompt ends within reasoning."""
        self._markers = markers
        self._answer = answer
        self._state = self._thinking if has_begun else self._at_start
        self._held = ""
        self._is_first = True

    @property
    def in_reasoning(self) -> bool:
        """See OutputParser."""
        return self._state == self._thinking

    def push(self, text: str) -> Parsed:
        """See OutputParser."""
        text, self._held = self._held + text, ""
        return self._state(text)

    def flush(self) -> Parsed:
        """See OutputParser."""
        held, self._held = self._held, ""
        if self._state == self._thinking:
            return Parsed(reasoning=without_end_space(held))
        return self._answer.push(held) + self._answer.flush()

    def _at_start(self, text: str) -> Parsed:
        begun = self._markers.begun_in(text)
        if begun is None:
            self._held = text
            return Parsed()
        if begun:
            self._state = self._thinking
            return self._thinking(text.lstrip()[len(self._markers.begin) :])
        self._state = self._answer.push
        return self._answer.push(text)

    def _thinking(self, text: str) -> Parsed:
        if self._is_first:
            text = text.lstrip().removeprefix(self._markers.begin).lstrip()
            if not text or may_become(text, [self._markers.begin]):
                self._held = text
                return Parsed()
            self._is_first = False
        found = first_marker(text, [self._markers.end])
        if found is None:
            certain, self._held = split_at_hold(text, [self._markers.end])
            return Parsed(reasoning=certain)
        self._state = self._after
        return Parsed(reasoning=without_end_space(text[: found[0]])) + self._after(
            text[found[0] + len(self._markers.end) :]
        )

    def _after(self, text: str) -> Parsed:
        """Between the reasoning and the answer."""
        text = text.lstrip()
        if not text:
            return Parsed()
        self._state = self._answer.push
        return self._answer.push(text)


class KeptReasoning:
    """OutputParser of a text whose reasoning stays in it, as it is written: only what comes behind it is for the parser
    of the answer."""

    def __init__(self, markers: ReasoningMarkers, answer: OutputParser, *, has_begun: bool) -> None:
        """As ReasoningParser's."""
        self._markers = markers
        self._answer = answer
        self._state = self._thinking if has_begun else self._at_start
        self._held = ""

    @property
    def in_reasoning(self) -> bool:
        """See OutputParser."""
        return self._state == self._thinking

    def push(self, text: str) -> Parsed:
        """See OutputParser."""
        text, self._held = self._held + text, ""
        return self._state(text)

    def flush(self) -> Parsed:
        """See OutputParser."""
        held, self._held = self._held, ""
        return Parsed(held) if self.in_reasoning else self._answer.push(held) + self._answer.flush()

    def _at_start(self, text: str) -> Parsed:
        begun = self._markers.begun_in(text)
        if begun is None:
            self._held = text
            return Parsed()
        self._state = self._thinking if begun else self._answer.push
        return self._state(text)

    def _thinking(self, text: str) -> Parsed:
        before, end, after = text.partition(self._markers.end)
        if not end:
            certain, self._held = split_at_hold(text, [self._markers.end])
            return Parsed(certain)
        self._state = self._answer.push
        return Parsed(before + end) + self._answer.push(after)
