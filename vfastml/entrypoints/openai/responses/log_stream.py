"""The events of a response in the background, sent to whoever follows it."""

from __future__ import annotations

import asyncio
import contextlib

from starlette.types import Receive, Scope, Send

from vfastml.entrypoints.openai.responses.event_log import EventLog
from vfastml.entrypoints.openai.responses.output_items import error_event
from vfastml.entrypoints.openai.responses.query_fields import Query, whole_number
from vfastml.entrypoints.openai.sampling_fields import INT32_MAX
from vfastml.entrypoints.streaming import EventResponse, Wording, event
from vfastml.errors import InternalServerError, InvalidRequestError


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
    """Sends what is in the log from that number on, and what comes, until the log is closed. To a reader so slow that
    events are dropped before they are sent, an `error` event is the last. A comment goes out after `keep_alive_s` of
    silence."""

    def __init__(self, log: EventLog, number: int, keep_alive_s: float) -> None:
        super().__init__()
        self._reader = log.reader(number)
        self._keep_alive_s = keep_alive_s

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        while not (self._reader.is_left_behind() or self._reader.has_ended()):
            if events := self._reader.take():
                await send({"type": "http.response.body", "body": b"".join(events), "more_body": True})
            else:
                await self._wait(send)
        last = self._left_behind() if self._reader.is_left_behind() else b""
        await send({"type": "http.response.body", "body": last, "more_body": False})

    async def _wait(self, send: Send) -> None:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._reader.wait(), self._keep_alive_s)
            return
        await send({"type": "http.response.body", "body": Wording.keep_alive, "more_body": True})

    def _left_behind(self) -> bytes:
        message = "Events were dropped before they could be sent: the response can still be fetched whole."
        error = InternalServerError(message, code="events_dropped")
        return event({**error_event(error), "sequence_number": self._reader.number}, "error")
