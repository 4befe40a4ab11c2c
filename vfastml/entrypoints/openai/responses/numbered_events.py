"""Events as they are sent: named, numbered and encoded."""

from __future__ import annotations

from collections.abc import Iterable

from vfastml.entrypoints.openai.responses.output_items import Event
from vfastml.entrypoints.streaming import event


class NumberedEvents:
    """Counts the events of one response, from 0 on."""

    def __init__(self) -> None:
        self._next = 0

    def encoded(self, events: Iterable[Event]) -> list[bytes]:
        """The next ones, each by itself. If one cannot be encoded, none of them has a number."""
        made = [
            event({**body, "sequence_number": number}, body["type"]) for number, body in enumerate(events, self._next)
        ]
        self._next += len(made)
        return made
