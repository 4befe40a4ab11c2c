"""One response from its first word to its last: its body at any time, and the events that tell how it grows."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

from vfastml.engine.dispatch_replies import Delta, PlaceLogprobs, Timings, ToolCallPiece, Usage
from vfastml.entrypoints.openai.responses.output_items import (
    Body,
    Event,
    FunctionCallItem,
    MessageItem,
    OutputItem,
    ReasoningItem,
    Status,
    error_event,
)
from vfastml.entrypoints.timings import TimedAnswer
from vfastml.errors import RequestCancelledError, VFastMLError

_ERROR_CODES = {400: "invalid_prompt", 429: "rate_limit_exceeded"}
"""Of a response; every other status is one of these to the API."""


class GrowingResponse:
    """Fed with deltas until it is finished, failed or cancelled; all tell the events that it makes."""

    def __init__(self, head: Body, *, with_timings: bool = False) -> None:
        """`head`: the body but for what the model adds. `with_timings`: it says how long it took."""
        self.id: str = head["id"]
        self._head = dict(head)
        self._items: list[OutputItem] = []
        self._open: OutputItem | None = None
        self._calls: dict[int, FunctionCallItem] = {}
        self._is_told_of = False
        self._with_timings = with_timings
        self._timings = Timings()
        self._unsaid: list[PlaceLogprobs] = []
        """Log probabilities of tokens whose text, if they have any, has not come yet."""

    @property
    def status(self) -> str:
        return str(self._head["status"])

    def body(self) -> Body:
        """As far as it has come."""
        return {**self._head, "output": self.output()}

    def output(self) -> list[Body]:
        """The items alone."""
        return [item.body() for item in self._items]

    def wait(self) -> list[Event]:
        """For its turn, in the background."""
        self._is_told_of = True
        return [self._whole("created"), self._whole("queued")]

    def begin(self) -> list[Event]:
        """Under way."""
        self._head["status"] = "in_progress"
        told_of = [] if self._is_told_of else [self._whole("created")]
        return [*told_of, self._whole("in_progress")]

    def add(self, delta: Delta) -> list[Event]:
        """What a delta brings: models think, then speak, then call."""
        self._note_logprobs(delta)
        events: list[Event] = []
        if delta.reasoning:
            events += self._think(delta.reasoning)
        if delta.text:
            events += self._say(delta.text)
        for piece in delta.tool_calls or ():
            events += self._call(piece)
        if delta.finish_reason == "length":
            self._head["incomplete_details"] = {"reason": "max_output_tokens"}
        return events

    def note_timings(self, timings: Timings) -> None:
        """How long it took, told just before it is finished."""
        self._timings = timings

    def finish(self, usage: Usage) -> list[Event]:
        """The model has ended."""
        status: Status = "incomplete" if self._head["incomplete_details"] else "completed"
        events = [] if self._items else [*self._opened(MessageItem(0))]
        if isinstance(self._open, MessageItem):
            self._open.add_logprobs(self._unsaid)
        events += self._closed(status)
        self._head |= {"status": status, "usage": _usage_body(usage)}
        if self._with_timings:
            self._head["timings"] = TimedAnswer(self._timings, usage, num_choices=1).body()
        if status == "completed":
            self._head["completed_at"] = int(time.time())
        return [*events, self._whole(status)]

    def fail(self, error: VFastMLError) -> list[Event]:
        """The end in the midst of it. What was being said is left out."""
        self._drop_open()
        told = {"code": _ERROR_CODES.get(error.status, "server_error"), "message": error.message}
        self._head |= {"status": "failed", "error": told}
        return [error_event(error), self._whole("failed")]

    def cancel(self) -> list[Event]:
        """Stopped on request, or with the gateway. What was being said is kept."""
        events = list(self._closed("incomplete"))
        self._head["status"] = "cancelled"
        return [*events, error_event(RequestCancelledError())]

    def _whole(self, kind: str) -> Event:
        return {"type": f"response.{kind}", "response": self.body()}

    def _note_logprobs(self, delta: Delta) -> None:
        """Only of what is said. Text that may be the beginning of something else is held back, and comes later."""
        if delta.text or not (delta.reasoning or delta.tool_calls):
            self._unsaid += delta.logprobs or ()
        else:
            self._unsaid.clear()

    def _think(self, text: str) -> Iterator[Event]:
        if not isinstance(self._open, ReasoningItem):
            yield from self._opened(ReasoningItem(len(self._items)))
        assert isinstance(self._open, ReasoningItem)
        yield self._open.think(text)

    def _say(self, text: str) -> Iterator[Event]:
        if not isinstance(self._open, MessageItem):
            yield from self._opened(MessageItem(len(self._items)))
        assert isinstance(self._open, MessageItem)
        places, self._unsaid = self._unsaid, []
        yield self._open.say(text, places)

    def _call(self, piece: ToolCallPiece) -> Iterator[Event]:
        call = self._calls.get(piece.index)
        if call is None:
            call = self._calls[piece.index] = FunctionCallItem(len(self._items), piece)
            yield from self._opened(call)
        elif call is not self._open:
            yield from self._reopened(call)
        yield from call.add(piece)

    def _opened(self, item: OutputItem) -> Iterator[Event]:
        yield from self._closed("completed")
        self._items.append(item)
        self._open = item
        yield from item.opening()

    def _reopened(self, item: OutputItem) -> Iterator[Event]:
        """Its end is told again when it comes."""
        yield from self._closed("completed")
        item.status = "in_progress"
        self._open = item

    def _closed(self, status: Status) -> Iterator[Event]:
        if self._open is not None:
            yield from self._open.closing(status)
            self._open = None

    def _drop_open(self) -> None:
        if self._open is not None:
            self._items.remove(self._open)
            self._open = None


def _usage_body(usage: Usage) -> dict[str, Any]:
    return {
        "input_tokens": usage.prompt_tokens,
        "input_tokens_details": {"cached_tokens": usage.cached_tokens, "cache_write_tokens": 0},
        "output_tokens": usage.completion_tokens,
        "output_tokens_details": {"reasoning_tokens": usage.reasoning_tokens},
        "total_tokens": usage.prompt_tokens + usage.completion_tokens,
    }
