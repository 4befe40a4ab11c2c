"""A response as the events of a stream."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from vfastml.engine.dispatch_replies import Delta, Timings, Usage
from vfastml.entrypoints.openai.responses.growing_response import GrowingResponse
from vfastml.entrypoints.openai.responses.numbered_events import NumberedEvents
from vfastml.entrypoints.openai.responses.output_items import Event
from vfastml.entrypoints.streaming import Wording
from vfastml.errors import VFastMLError


class ResponseEvents(Wording):
    """There is no `[DONE]`: the last event says itself that it is the last."""

    def __init__(self, growing: GrowingResponse, keep: Callable[[], None]) -> None:
        """`keep` is called once, when the response has ended."""
        self._growing = growing
        self._keep = keep
        self._numbers = NumberedEvents()

    def opening(self) -> bytes:
        """Before the model has said anything."""
        return self._encoded(self._growing.begin())

    def delta(self, position: int, delta: Delta) -> bytes:
        """What the model says, thinks or calls."""
        return self._encoded(self._growing.add(delta))

    def note_timings(self, timings: Sequence[Timings]) -> None:
        """For the response to tell, if it was asked for."""
        self._growing.note_timings(timings[0])

    def closing(self, usages: Sequence[Usage]) -> bytes:
        """The end of what is open, and the whole response."""
        return self._last(self._growing.finish(usages[0]))

    def failure(self, error: VFastMLError) -> bytes:
        """What went wrong, and what there is of the response."""
        return self._last(self._growing.fail(error))

    def _last(self, events: Iterable[Event]) -> bytes:
        encoded = self._encoded(events)
        self._keep()
        return encoded

    def _encoded(self, events: Iterable[Event]) -> bytes:
        return b"".join(self._numbers.encoded(events))
