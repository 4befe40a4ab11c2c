"""The events of a response in the background: kept, so that whoever lost the connection can go on where he was."""

from __future__ import annotations

import asyncio
import weakref
from collections.abc import Iterable

from vfastml.entrypoints.limits import MAX_EVENT_LOG_BYTES, MAX_UNREAD_LOG_BYTES
from vfastml.entrypoints.openai.responses.numbered_events import NumberedEvents
from vfastml.entrypoints.openai.responses.output_items import Event


class EventLog:
    """Has the last of the events: those that came last together, and before them up to `max_bytes`, or up to
    `max_unread_bytes` of what a reader has not taken yet."""

    def __init__(self, max_bytes: int = MAX_EVENT_LOG_BYTES, max_unread_bytes: int = MAX_UNREAD_LOG_BYTES) -> None:
        self.num_bytes = 0
        self.is_closed = False
        self._max_bytes = max_bytes
        self._max_unread_bytes = max_unread_bytes
        self._numbers = NumberedEvents()
        self._first = 0
        """The number of the first event that is there."""
        self._events: list[bytes] = []
        self._readers: weakref.WeakSet[LogReader] = weakref.WeakSet()
        self._news = asyncio.Event()

    @property
    def end(self) -> int:
        """The number of the event that comes next."""
        return self._first + len(self._events)

    def add(self, events: Iterable[Event]) -> None:
        """The next events."""
        newest = self.end
        encoded = self._numbers.encoded(events)
        self._events += encoded
        self.num_bytes += sum(map(len, encoded))
        self._drop(min([newest, *[reader.number for reader in self._readers]]), self._max_bytes)
        self._drop(newest, self._max_unread_bytes)
        self._wake()

    def close(self) -> None:
        """There are no more."""
        self.is_closed = True
        self._wake()

    def reader(self, number: int) -> LogReader:
        """One that begins with the event of that number. What it has not taken is kept as long as it is there."""
        reader = LogReader(self, number)
        self._readers.add(reader)
        return reader

    def has(self, number: int) -> bool:
        """Whether nothing from that number on has been dropped."""
        return number >= self._first

    def since(self, number: int) -> list[bytes]:
        """All from that number on that are there now."""
        return self._events[max(0, number - self._first) :]

    async def wait(self, number: int) -> None:
        """Until there is something from that number on, or there is no more to come."""
        while not self.is_closed and number >= self.end:
            await self._news.wait()

    def _drop(self, end: int, max_bytes: int) -> None:
        """The oldest, while they are more than so much, up to the event of that number."""
        count = 0
        while self.num_bytes > max_bytes and self._first + count < end:
            self.num_bytes -= len(self._events[count])
            count += 1
        del self._events[:count]
        self._first += count

    def _wake(self) -> None:
        """Who waits is woken; who comes later waits for what comes later."""
        self._news.set()
        self._news = asyncio.Event()


class LogReader:
    """Takes the events of a log in their order."""

    def __init__(self, log: EventLog, number: int) -> None:
        self.number = number
        """Of the next event that it takes."""
        self._log = log

    def has_ended(self) -> bool:
        """Whether it has taken all that there will be."""
        return self._log.is_closed and self.number >= self._log.end

    def is_left_behind(self) -> bool:
        """Whether something has been dropped that it has not taken."""
        return not self._log.has(self.number)

    def take(self) -> list[bytes]:
        """What has come and was not taken."""
        events = self._log.since(self.number)
        self.number += len(events)
        return events

    async def wait(self) -> None:
        """For something to take, or for the end."""
        await self._log.wait(self.number)
