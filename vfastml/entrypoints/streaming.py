"""Server-sent events: deltas as they come, comments when nothing comes, and an honest end."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from typing import Any

import msgspec
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from vfastml.engine.arrivals import Arrivals
from vfastml.engine.dispatch_replies import Delta, Timings, Usage
from vfastml.engine.dispatch_task import DispatchTask
from vfastml.entrypoints.http_errors import error_body, shown_to_client
from vfastml.errors import VFastMLError

_LINE_ENDS = (("\x85", b"\\u0085"), ("\u2028", b"\\u2028"), ("\u2029", b"\\u2029"))
"""No line ends to the protocol, nor to JSON, but to clients that split text with their language's own function."""


def event(body: dict[str, Any], name: str = "") -> bytes:
    """One event, with its name where clients tell events apart by one."""
    head = f"event: {name}\n".encode() if name else b""
    return head + b"data: " + event_json(body) + b"\n\n"


def event_json(value: Any) -> bytes:
    """JSON as it may stand in an event."""
    data = msgspec.json.encode(value)
    if not data.isascii():
        for char, escaped in _LINE_ENDS:
            data = data.replace(char.encode(), escaped)
    return data


class Wording:
    """How a stream's facts are put into events; each method may return several, or nothing. What is not said here is
    said as in OpenAI's older streams: comments, and plain error events."""

    keep_alive = b": keep-alive\n\n"
    """What is sent when nothing else has been for a while."""

    def opening(self) -> bytes:
        """What goes ahead of the first delta, at once."""
        return b""

    def delta(self, position: int, delta: Delta) -> bytes:
        """A delta of the task at that position."""
        raise NotImplementedError

    def note_timings(self, timings: Sequence[Timings]) -> None:
        """How long all tasks took, told just before the closing."""

    def closing(self, usages: Sequence[Usage]) -> bytes:
        """The end when all tasks have finished, who used that much."""
        raise NotImplementedError

    def failure(self, error: VFastMLError) -> bytes:
        """The end when one has failed."""
        return event(error_body(error))


class EventResponse(Response):
    """Server-sent events, which no proxy may keep back."""

    media_type = "text/event-stream"

    def __init__(self) -> None:
        super().__init__(headers={"cache-control": "no-cache", "x-accel-buffering": "no"})
        del self.headers["content-length"]


class EventStream(EventResponse):
    """Streams accepted tasks side by side, the deltas of each in order, until all have finished: then the wording's
    closing. A failure ends the stream with an error event in its place. However it ends, no task is left running.

    What has come together leaves together, in one message; nothing waits for more to come. A client that does not keep
    up gets fewer and longer deltas (see DispatchTask).

    A sign of life goes out after `keep_alive_s` of silence, because proxies cut connections that say nothing.
    """

    def __init__(self, tasks: Sequence[DispatchTask], wording: Wording, keep_alive_s: float) -> None:
        super().__init__()
        self._tasks = tasks
        self._wording = wording
        self._keep_alive_s = keep_alive_s

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
            # A task of its own: a coroutine is resumed through all those that wait for it, and at this place they are
            # the layers of the whole app. Cancelled here, it is cancelled too.
            last = await asyncio.create_task(self._stream(send))
            await send({"type": "http.response.body", "body": last, "more_body": False})
        finally:
            for task in self._tasks:
                task.cancel()

    async def _stream(self, send: Send) -> bytes:
        """Write all deltas; the events that end the stream are returned."""
        arrivals = Arrivals(self._tasks)
        silence = _Silence(self._keep_alive_s, arrivals.wake)
        try:
            if opening := self._wording.opening():
                await send({"type": "http.response.body", "body": opening, "more_body": True})
            while (deltas := await arrivals.next()) is not None:
                events = b"".join([self._wording.delta(position, delta) for position, delta in deltas])
                if not events and silence.is_long():
                    events = self._wording.keep_alive
                if events:
                    silence.broken()
                    await send({"type": "http.response.body", "body": events, "more_body": True})
            self._wording.note_timings([task.timings or Timings() for task in self._tasks])
            return self._wording.closing([task.usage or Usage() for task in self._tasks])
        except Exception as error:
            return self._wording.failure(shown_to_client(error))
        finally:
            silence.end()


class _Silence:
    """Tells when nothing has been sent for `long_s` seconds. One timer, that is not touched by what is sent."""

    def __init__(self, long_s: float, tell: Callable[[], None]) -> None:
        self._long_s = long_s
        self._tell = tell
        self._loop = asyncio.get_running_loop()
        self._since = time.monotonic()
        self._timer = self._loop.call_later(long_s, self._look)

    def broken(self) -> None:
        """Something is sent now."""
        self._since = time.monotonic()

    def is_long(self) -> bool:
        return time.monotonic() - self._since >= self._long_s

    def end(self) -> None:
        self._timer.cancel()

    def _look(self) -> None:
        left_s = self._since + self._long_s - time.monotonic()
        if left_s <= 0:
            self._tell()
        self._timer = self._loop.call_later(left_s if left_s > 0 else self._long_s, self._look)
