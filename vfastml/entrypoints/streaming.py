"""Server-sent events: deltas as they come, comments when nothing comes, and an honest end."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from typing import Any, Protocol

import msgspec
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from vfastml.engine.dispatch_replies import Delta, Usage
from vfastml.engine.dispatch_task import DispatchTask
from vfastml.entrypoints.http_errors import error_body, shown_to_client

KEEP_ALIVE = b": keep-alive\n\n"
DONE = b"data: [DONE]\n\n"


_LINE_ENDS = (("\x85", b"\\u0085"), ("\u2028", b"\\u2028"), ("\u2029", b"\\u2029"))
"""No line ends to the protocol, nor to JSON, but to clients that split text with their language's own function."""


def event(body: dict[str, Any]) -> bytes:
    """One event."""
    data = msgspec.json.encode(body)
    for char, escaped in _LINE_ENDS:
        data = data.replace(char.encode(), escaped)
    return b"data: " + data + b"\n\n"


class Wording(Protocol):
    """How a stream's facts are put into events; each method may return several, or nothing."""

    def delta(self, position: int, delta: Delta) -> bytes:
        """A delta of the task at that position."""

    def usage(self, usages: Sequence[Usage]) -> bytes:
        """What all tasks used, when all have finished."""


class EventStream(Response):
    """Streams accepted tasks side by side, deltas in order of arrival, until all have finished: then `[DONE]`. A
    failure ends the stream with an error event and without `[DONE]`. However it ends, no task is left running.

    A comment goes out after `keep_alive_s` of silence, because proxies cut connections that say nothing.
    """

    media_type = "text/event-stream"

    def __init__(self, tasks: Sequence[DispatchTask], wording: Wording, keep_alive_s: float) -> None:
        super().__init__(headers={"cache-control": "no-cache", "x-accel-buffering": "no"})
        del self.headers["content-length"]
        self._tasks = tasks
        self._wording = wording
        self._keep_alive_s = keep_alive_s

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
            line = _Line(send)
            await line.write(await self._stream(line))
            await send({"type": "http.response.body", "body": b"", "more_body": False})
        finally:
            for task in self._tasks:
                task.cancel()

    async def _stream(self, line: _Line) -> bytes:
        """Write all deltas; the events that end the stream are returned."""
        keeping_alive = asyncio.create_task(line.keep_alive(self._keep_alive_s))
        writers = [asyncio.create_task(self._write_deltas(line, *each)) for each in enumerate(self._tasks)]
        try:
            await asyncio.gather(*writers)
            return self._wording.usage([task.usage or Usage() for task in self._tasks]) + DONE
        except Exception as error:
            return event(error_body(shown_to_client(error)))
        finally:
            for running in (keeping_alive, *writers):
                running.cancel()

    async def _write_deltas(self, line: _Line, position: int, task: DispatchTask) -> None:
        async for delta in task:
            await line.write(self._wording.delta(position, delta))


class _Line:
    """The way to one client. Events are written whole, one message each, so that several writers may interleave."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self._written_at = time.monotonic()

    async def write(self, events: bytes) -> None:
        if events:
            self._written_at = time.monotonic()
            await self._send({"type": "http.response.body", "body": events, "more_body": True})

    async def keep_alive(self, after_s: float) -> None:
        while True:
            silent_s = time.monotonic() - self._written_at
            if silent_s >= after_s:
                await self.write(KEEP_ALIVE)
            else:
                await asyncio.sleep(after_s - silent_s)
