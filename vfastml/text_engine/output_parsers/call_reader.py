"""What reads one tool call of a growing text."""

from __future__ import annotations

from typing import Protocol


class CallReader(Protocol):
    """Of one call, from its first character on."""

    name: str | None
    """Of the function, once it is known; it does not change any more."""
    has_ended: bool
    """The call is complete."""
    has_failed: bool
    """This is no call, or not one any more."""

    def push(self, text: str) -> str:
        """Takes what belongs to the call, and returns the rest. After the end and after a failure it takes nothing."""

    def take_arguments(self) -> str:
        """The new part of the arguments' JSON, once the name is known. The parts make a whole value if the call
        ends."""
