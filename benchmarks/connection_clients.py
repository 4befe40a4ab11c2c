"""Clients by the thousand: connections that stay open without a request, and streams that note when something came."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import TypeVar, cast

from benchmarks.errors import BenchmarkError
from benchmarks.http_exchange import ServerAddress

_OK = b"HTTP/1.1 200 "
_EVENT = b"data: {"
_DONE = b"data: [DONE]"
_AT_ONCE = 100
"""Connections that are opened side by side: more would fill the queue of the listening socket, and wait for seconds."""


_C = TypeVar("_C", bound=asyncio.Protocol)


class IdleConnection(asyncio.Protocol):
    """Has asked once, for `request`, and is kept open."""

    def __init__(self, request: bytes) -> None:
        self.answered: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.is_open = True
        self._request = request

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.WriteTransport, transport)  # uvloop's are not instances of it
        self._transport.write(self._request)

    def data_received(self, data: bytes) -> None:
        if not self.answered.done():
            self.answered.set_result(None)

    def connection_lost(self, exc: Exception | None) -> None:
        self.is_open = False
        if not self.answered.done():
            self.answered.set_result(None)

    def close(self) -> None:
        """At once."""
        self._transport.abort()


class TimedStream(asyncio.Protocol):
    """One streamed request: how many events came, the last one (`[DONE]`) aside, and when. Times are seconds."""

    def __init__(self, request: bytes) -> None:
        self.ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.events = 0
        self.first_s: float | None = None
        """From the request to its first event."""
        self.longest_gap_s = 0.0
        """Between two reads with events."""
        self.whole = False
        self._request = request
        self._start = b""
        self._end = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.WriteTransport, transport)

    def ask(self) -> None:
        """Send the request."""
        self._asked = self._latest = time.perf_counter()
        self._transport.write(self._request)

    def data_received(self, data: bytes) -> None:
        self._start = self._start or data[: len(_OK)]
        joined = self._end + data
        # An event may be cut in two; one that lies in the part that is kept has been counted.
        if events := joined.count(_EVENT) - self._end.count(_EVENT):
            self._note(events)
        self._end = joined[-64:]

    def connection_lost(self, exc: Exception | None) -> None:
        self.whole = self._start == _OK and _DONE in self._end
        self.ended.set_result(None)

    def _note(self, events: int) -> None:
        now = time.perf_counter()
        if self.first_s is None:
            self.first_s = now - self._asked
        else:
            self.longest_gap_s = max(self.longest_gap_s, now - self._latest)
        self._latest = now
        self.events += events


async def open_connections(server: ServerAddress, count: int, make: Callable[[], _C]) -> list[_C]:
    """That many, a hundred at a time. Raises BenchmarkError if the server takes no more."""
    opened: list[_C] = []
    while len(opened) < count:
        batch = min(_AT_ONCE, count - len(opened))
        opened += await asyncio.gather(*(_open(server, make) for _ in range(batch)))
    return opened


async def _open(server: ServerAddress, make: Callable[[], _C]) -> _C:
    try:
        async with asyncio.timeout(10):
            _, client = await asyncio.get_running_loop().create_connection(make, server.host, server.port)
    except (OSError, TimeoutError) as error:
        reason = getattr(error, "strerror", None) or "no answer"
        raise BenchmarkError(f"The gateway takes no connection: {reason}.") from error
    return client
