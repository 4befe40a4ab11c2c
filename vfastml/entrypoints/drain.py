"""Going away politely: what is open is finished, what is new is told to come again."""

from __future__ import annotations

import asyncio

from starlette.types import ASGIApp, Receive, Scope, Send

from vfastml.entrypoints.auth import is_probe
from vfastml.entrypoints.http_errors import error_response
from vfastml.errors import InternalServerTooBusyError


class DrainGate:
    """Counts the open HTTP requests, probes aside, and lets no more in once it is closed. Before that it may say that
    it is going to close: it is not ready any more, and load balancers look elsewhere."""

    def __init__(self) -> None:
        self.open_requests = 0
        self.is_leaving = False
        self.closed = False
        self._idle = asyncio.Event()
        self._idle.set()

    def announce_close(self) -> None:
        self.is_leaving = True

    def close(self) -> None:
        self.is_leaving = self.closed = True

    def enter(self) -> None:
        self.open_requests += 1
        self._idle.clear()

    def leave(self) -> None:
        self.open_requests -= 1
        if self.open_requests == 0:
            self._idle.set()

    async def wait_idle(self, timeout_s: float) -> bool:
        """Whether all open requests ended within that time."""
        try:
            await asyncio.wait_for(self._idle.wait(), timeout_s)
        except TimeoutError:
            return False
        return True


class DrainMiddleware:
    """Holds the gate. A refused client gets its connection closed, so that its next try reaches another gateway."""

    def __init__(self, app: ASGIApp, gate: DrainGate) -> None:
        self.app = app
        self.gate = gate

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or is_probe(scope):
            await self.app(scope, receive, send)
            return
        if self.gate.closed:
            refusal = InternalServerTooBusyError("The server is shutting down.", retry_after_s=1.0)
            await error_response(refusal, {"connection": "close"}, scope=scope)(scope, receive, send)
            return
        self.gate.enter()
        try:
            await self.app(scope, receive, send)
        finally:
            self.gate.leave()
