"""How long a request may take: as long as the gateway allows, or less if its client asks for less."""

from __future__ import annotations

import math
import re
import time

from starlette.types import ASGIApp, Receive, Scope, Send

from vfastml.engine.deadline import DEADLINE
from vfastml.entrypoints.auth import is_probe
from vfastml.errors import InvalidRequestError

HEADER = b"x-request-timeout"
_SECONDS = re.compile(rb"\d{1,9}(\.\d{1,9})?")


class DeadlineMiddleware:
    """Sets the deadline of whatever a request dispatches, probes aside; the time runs from its headers on. `timeout_s`
    0 is no bound of the gateway's.

    Raises InvalidRequestError for an `x-request-timeout` that is no number of seconds, or 0.
    """

    def __init__(self, app: ASGIApp, timeout_s: float) -> None:
        self.app = app
        self._timeout_s = timeout_s or math.inf

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or is_probe(scope):
            await self.app(scope, receive, send)
            return
        timeout_s = min(self._timeout_s, _asked_s(scope))
        before = DEADLINE.set(None if timeout_s == math.inf else time.monotonic() + timeout_s)
        try:
            await self.app(scope, receive, send)
        finally:
            DEADLINE.reset(before)


def _asked_s(scope: Scope) -> float:
    """Infinite where the client asks for nothing."""
    return min((_seconds(value) for name, value in scope["headers"] if name == HEADER), default=math.inf)


def _seconds(value: bytes) -> float:
    if not _SECONDS.fullmatch(value) or float(value) == 0:
        raise InvalidRequestError("The header 'x-request-timeout' must be a number of seconds, more than 0.")
    return float(value)
