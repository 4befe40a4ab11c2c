"""What finds tool calls and reasoning in a text."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from vfastml.engine.dispatch_replies import ToolCallPiece


@dataclass(frozen=True, slots=True)
class Parsed:
    """New parts of an answer."""

    text: str = ""
    reasoning: str = ""
    tool_calls: tuple[ToolCallPiece, ...] = ()

    def __add__(self, later: Parsed) -> Parsed:
        """Both, one after the other."""
        return Parsed(self.text + later.text, self.reasoning + later.reasoning, (*self.tool_calls, *later.tool_calls))


class OutputParser(Protocol):
    """Of one growing text. What it gives out does not depend on how the text was cut."""

    def push(self, text: str) -> Parsed:
        """What is certain now; the rest is held back."""

    def flush(self) -> Parsed:
        """What is still held back, when no more text comes."""

    @property
    def in_reasoning(self) -> bool:
        """The text so far ends within reasoning."""
