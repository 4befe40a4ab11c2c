"""A client that only counts events, so that the server is what is measured."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import cast

from benchmarks.errors import BenchmarkError
from benchmarks.http_exchange import ServerAddress

_EVENT = b"data: {"
_DONE = b"data: [DONE]"
_OK = b"HTTP/1.1 200 "


async def count_events(server: ServerAddress, requests: Sequence[bytes]) -> int:
    """All requests at once, each on a connection of its own: how many events came, the last ones (`[DONE]`) aside.
    Raises BenchmarkError if a stream did not end as it should."""
    counters = [await _Counter.connect(server) for _ in requests]
    for counter, request in zip(counters, requests, strict=True):
        counter.ask(request)
    return sum([await counter.ended for counter in counters])


class _Counter(asyncio.Protocol):
    def __init__(self) -> None:
        self.ended: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self._events = 0
        self._start = b""
        self._end = b""

    @classmethod
    async def connect(cls, server: ServerAddress) -> _Counter:
        try:
            _, counter = await asyncio.get_running_loop().create_connection(cls, server.host, server.port)
        except OSError as error:
            raise BenchmarkError(f"The gateway takes no connection: {error.strerror or error}.") from error
        return counter

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.WriteTransport, transport)  # uvloop's are not instances of it

    def ask(self, request: bytes) -> None:
        self._transport.write(request)

    def data_received(self, data: bytes) -> None:
        self._start = self._start or data[: len(_OK)]
        joined = self._end + data
        # An event may be cut in two; one that lies in the part that is kept has been counted.
        self._events += joined.count(_EVENT) - self._end.count(_EVENT)
        self._end = joined[-64:]

    def connection_lost(self, exc: Exception | None) -> None:
        if self._start == _OK and _DONE in self._end:
            self.ended.set_result(self._events)
        else:
            self.ended.set_exception(BenchmarkError("A stream failed; see what the gateway has logged above."))
