"""uvicorn's HTTP parser, with bounds on what clients may send, how slowly, and over how many connections: it has none
of its own."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, NamedTuple

import msgspec
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from vfastml.entrypoints.http_errors import SERVER_STATUS, error_body
from vfastml.entrypoints.limits import BODY_TIMEOUT_S
from vfastml.errors import (
    InternalServerTooBusyError,
    InvalidRequestError,
    RequestTooLargeError,
    UserError,
    VFastMLError,
)

MAX_HEAD_BYTES = 64 << 10
"""Request line and headers; also what comes within a body and is none of it: sizes of chunks, trailers."""
MAX_HEADERS = 256
MAX_PIPELINED = 64
"""Requests of one connection that wait for the answer to an earlier one: they hold memory before a key is asked for."""
HEAD_TIMEOUT_S = 20.0
"""For a head to arrive, and for a new connection to send its first one."""
MIN_BODY_BYTES_PER_S = 1000
"""What a body has to keep up, after the time that it may be silent anyway. What came faster is not put to its credit:
a large part of a body, sent at once, would be held for hours."""


@dataclass(frozen=True, slots=True)
class ConnectionBounds:
    """How patient a server is, and with how many."""

    max_connections: float = math.inf
    body_timeout_s: float = BODY_TIMEOUT_S
    on_refused: Callable[[int], None] = lambda _: None
    """Told the status of each answer that no app gave."""


class _Refusal(NamedTuple):
    """A whole answer, for where no app gives one."""

    status: int
    answer: bytes


def bounded_protocol(bounds: ConnectionBounds) -> type[asyncio.Protocol]:
    """What uvicorn makes for each connection, with these bounds."""
    return type("HttpProtocol", (BoundedHttpProtocol,), {"bounds": bounds})


def _refusal(status: HTTPStatus, error: VFastMLError, headers: bytes = b"") -> _Refusal:
    body = msgspec.json.encode(error_body(error))
    answer = (
        b"HTTP/1.1 %d %b\r\ncontent-type: application/json\r\nconnection: close\r\n%bcontent-length: %d\r\n\r\n%b"
        % (status.value, status.phrase.encode(), headers, len(body), body)
    )
    return _Refusal(status.value, answer)


_LARGE_HEAD = _refusal(
    HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, RequestTooLargeError("The headers of the request are too large.")
)
_NO_HTTP = _refusal(HTTPStatus.BAD_REQUEST, InvalidRequestError("The request is not valid HTTP."))
_SLOW_BODY = _refusal(
    HTTPStatus.REQUEST_TIMEOUT, UserError("The body of the request did not arrive in time.", code="request_timeout")
)
_TOO_MANY = _refusal(
    HTTPStatus.SERVICE_UNAVAILABLE,
    InternalServerTooBusyError("The server has too many connections: try again a little later."),
    b"retry-after: 1\r\nretry-after-ms: 1000\r\n",
)


class BoundedHttpProtocol(HttpToolsProtocol):
    """Closes connections whose head is too large, or whose head or body is too slow, and those that are too many."""

    bounds = ConnectionBounds()

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._cycles: list[RequestResponseCycle] = []
        """Of the requests whose answers are not complete: the first one's handler runs, the others are its pipeline."""
        self._in_head = False
        self._head_bytes = 0
        self._head_timer: asyncio.TimerHandle | None = None
        self._head_is_large = False
        self._in_body = False
        self._bytes_without_body = 0
        """That have come since the last piece of the body."""
        self._body_paid_s = 0.0
        """The moment up to which what has come suffices."""
        self._body_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        if len(self.connections) > self.bounds.max_connections:
            self.bounds.on_refused(_TOO_MANY.status)
            transport.write(_TOO_MANY.answer)
            transport.close()
        else:
            self._start_head_timer()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_head_timer()
        self._stop_body_timer()
        self._unset_keepalive_if_required()  # after a reset it would keep all of this in memory until it is due
        self._tell_handlers()  # uvicorn tells the last one of a pipeline
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        began_earlier = self._in_head
        super().data_received(data)
        if self.transport.is_closing():
            return
        if self._in_body:
            self._on_body_data(len(data))
        elif self._in_head:
            self._on_head_data(len(data) if began_earlier else 0)
        elif self.cycle is None or self.cycle.response_complete:
            self._start_head_timer()  # bytes that begin nothing: the timer of idle connections has stopped at them

    def send_400_response(self, msg: str) -> None:
        answer = _LARGE_HEAD if self._head_is_large else _NO_HTTP
        if self._in_body:
            self._end_in_body(answer)
        else:
            self._refuse(answer)

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._in_head = True
        self._head_bytes = 0

    def on_header(self, name: bytes, value: bytes) -> None:
        if not self._in_body:  # a trailer could pass for a header that a proxy in front of us would not let through
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        num_bytes = len(self.url) + sum(len(name) + len(value) + 4 for name, value in self.headers)
        self._head_is_large = len(self.headers) > MAX_HEADERS or num_bytes > MAX_HEAD_BYTES
        if self._head_is_large:
            raise ValueError("the head is too large")  # which ends the parser, and comes to send_400_response
        if len(self.pipeline) >= MAX_PIPELINED:
            raise ValueError("too many requests wait")
        self._in_head = False
        self._stop_head_timer()
        super().on_headers_complete()
        self._in_body = True
        self._bytes_without_body = 0
        self._cycles = [*self._open_cycles(), self.cycle]

    def on_body(self, body: bytes) -> None:
        self._bytes_without_body = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        self._in_body = False
        self._stop_body_timer()
        super().on_message_complete()

    def _on_head_data(self, num_bytes: int) -> None:
        self._start_head_timer()
        self._head_bytes += num_bytes
        if self._head_bytes > MAX_HEAD_BYTES:
            self._refuse(_LARGE_HEAD)

    def _refuse(self, refusal: _Refusal) -> None:
        """Ends the connection, with this answer unless that to an earlier request is under way."""
        self._end(None if self._open_cycles() else refusal)

    def _end(self, last_words: _Refusal | None = None) -> None:
        """Ends the connection."""
        if last_words is not None:
            self._note(last_words.status)
            self.transport.write(last_words.answer)
        self._tell_handlers()
        self.transport.close()

    def _note(self, status: int) -> None:
        """Of an answer that no app gave: where a request's app runs, that counts it, and else nobody would."""
        if self._open_cycles():
            self.cycle.scope[SERVER_STATUS] = status  # type: ignore[literal-required]
        else:
            self.bounds.on_refused(status)

    def _tell_handlers(self) -> None:
        """Nobody listens any more: they end, or they would write to what is closed."""
        for cycle in self._open_cycles():
            cycle.disconnected = True
            cycle.message_event.set()

    def _open_cycles(self) -> list[RequestResponseCycle]:
        return [cycle for cycle in self._cycles if not cycle.response_complete]

    def _start_head_timer(self) -> None:
        if self._head_timer is None:
            self._head_timer = self.loop.call_later(HEAD_TIMEOUT_S, self._end)

    def _stop_head_timer(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def _on_body_data(self, num_bytes: int) -> None:
        """A body is not complete: it will be looked at when its time is over, by what it is then."""
        now = time.monotonic()
        self._bytes_without_body += num_bytes
        if self._bytes_without_body > num_bytes + MAX_HEAD_BYTES:
            self._end_in_body(_LARGE_HEAD)
        elif self._body_timer is None:
            self._body_paid_s = now
            self._body_timer = self.loop.call_later(self.bounds.body_timeout_s, self._look_at_body)
        else:
            self._body_paid_s = min(now, self._body_paid_s + num_bytes / MIN_BODY_BYTES_PER_S)

    def _look_at_body(self) -> None:
        now = time.monotonic()
        if self.flow.read_paused:  # it is us who are slow
            self._body_paid_s = now
        left_s = self._body_paid_s + self.bounds.body_timeout_s - now
        if left_s > 0:
            self._body_timer = self.loop.call_later(left_s, self._look_at_body)
            return
        self._end_in_body(_SLOW_BODY)

    def _end_in_body(self, refusal: _Refusal) -> None:
        """Ends the connection, with this answer unless another one is under way."""
        self._end(None if self.pipeline or self.cycle.response_started else refusal)

    def _stop_body_timer(self) -> None:
        if self._body_timer is not None:
            self._body_timer.cancel()
            self._body_timer = None
