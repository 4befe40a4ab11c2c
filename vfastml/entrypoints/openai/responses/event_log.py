"""The events of a response in the background: kept, so that whoever lost the connection can go on where he was."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterable

from starlette.types import Receive, Scope, Send

from vfastml.entrypoints.limits import MAX_EVENT_LOG_BYTES
from vfastml.entrypoints.openai.responses.numbered_events import NumberedEvents
from vfastml.entrypoints.openai.responses.output_items import Event
from vfastml.entrypoints.openai.responses.query_fields import Query, whole_number
from vfastml.entrypoints.openai.sampling_fields import INT32_MAX
from vfastml.entrypoints.streaming import EventResponse, Wording
from vfastml.errors import InvalidRequestError


class EventLog:
    """Has the last of the events, up to `max_bytes`. Any number of readers may follow it."""

    def __init__(self, max_bytes: int = MAX_EVENT_LOG_BYTES) -> None:
        self.num_bytes = 0
        self.is_closed = False
        self._max_bytes = max_bytes
        self._numbers = NumberedEvents()
        self._first = 0
        """The number of the first event that is there."""
        self._events: list[bytes] = []
        self._news = asyncio.Event()

    def add(self, events: Iterable[Event]) -> None:
        """The next events."""
        encoded = self._numbers.encoded(events)
        self._events += encoded
        self.num_bytes += sum(map(len, encoded))
        while self.num_bytes > self._max_bytes:
            self._drop_half()
        self._wake()

    def close(self) -> None:
        """There are no more."""
        self.is_closed = True
        self._wake()

    def has(self, number: int) -> bool:
        """Whether nothing from that number on has been dropped."""
        return number >= self._first

    def since(self, number: int) -> list[bytes]:
        """All from that number on that are there now."""
        return self._events[max(0, number - self._first) :]

    async def wait(self) -> None:
        """For more, or for the end."""
        if not self.is_closed:
            await self._news.wait()

    def _drop_half(self) -> None:
        half = (len(self._events) + 1) // 2
        self.num_bytes -= sum(map(len, self._events[:half]))
        self._first += half
        del self._events[:half]

    def _wake(self) -> None:
        """Who waits is woken; who comes later waits for what comes later."""
        self._news.set()
        self._news = asyncio.Event()


def log_stream(log: EventLog | None, query: Query, keep_alive_s: float) -> LogStream:
    """What is in the log behind the event `starting_after`. Raises InvalidRequestError if it is not there."""
    if log is None:
        message = "Only a response that was created with 'background' and 'stream' can be streamed again."
        raise InvalidRequestError(message, param="stream")
    number = whole_number(query, "starting_after", -1, 0, INT32_MAX) + 1
    if not log.has(number):
        raise InvalidRequestError("The events behind that one are forgotten already.", param="starting_after")
    return LogStream(log, number, keep_alive_s)


class LogStream(EventResponse):
    """Sends what is in the log from that number on, and what comes, until the log is closed. For a reader who is so
    slow that events are dropped before they are sent, it ends early. A comment goes out after `keep_alive_s` of
    silence."""

    def __init__(self, log: EventLog, number: int, keep_alive_s: float) -> None:
        super().__init__()
        self._log = log
        self._number = number
        self._keep_alive_s = keep_alive_s

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        while self._log.has(self._number):
            events = self._log.since(self._number)
            self._number += len(events)
            if events:
                await send({"type": "http.response.body", "body": b"".join(events), "more_body": True})
            elif self._log.is_closed:
                break
            else:
                await self._wait(send)
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _wait(self, send: Send) -> None:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._log.wait(), self._keep_alive_s)
            return
        await send({"type": "http.response.body", "body": Wording.keep_alive, "more_body": True})
