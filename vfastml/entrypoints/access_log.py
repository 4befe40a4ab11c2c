"""A log line for HTTP requests, and an `x-request-id` for each. Never a body, a query string or a header's value."""

from __future__ import annotations

import logging
import time

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from vfastml.engine.request_handles import REQUEST_NAME
from vfastml.engine.request_id import gen_request_id
from vfastml.entrypoints.auth import FREE_PATHS
from vfastml.entrypoints.limits import REQUEST_ID
from vfastml.entrypoints.root_path import route_path

logger = logging.getLogger(__name__)

CLIENT_CLOSED_REQUEST = 499
_MAX_PATH_CHARS = 200
_NAMES = (b"x-request-id", b"request-id")
"""Anthropic's clients know the second one."""


class AccessLogMiddleware:
    """Outside of all that answers. `shown` is one of ACCESS_LOGS; neither probes nor clients that went away count as
    errors, and with `all` probes are logged at debug level. A client's own `x-request-id` is kept when it is short and
    plain. What a request dispatches has that name too: see engine/request_handles.py."""

    def __init__(self, app: ASGIApp, shown: str) -> None:
        self.app = app
        self.shown = shown

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        started_at = time.monotonic()
        status = CLIENT_CLOSED_REQUEST
        request_id = _request_id(scope)

        async def marked_send(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = [*message.get("headers", ()), *((name, request_id.encode()) for name in _NAMES)]
                message = {**message, "headers": headers}
            await send(message)

        before = REQUEST_NAME.set(request_id)
        try:
            await self.app(scope, receive, marked_send)
        finally:
            REQUEST_NAME.reset(before)
            self._log(scope, status, time.monotonic() - started_at, request_id)

    def _log(self, scope: Scope, status: int, seconds: float, request_id: str) -> None:
        path = route_path(scope)
        is_probe = path in FREE_PATHS
        is_error = status >= 400 and status != CLIENT_CLOSED_REQUEST and not is_probe
        if self.shown == "all" or (self.shown == "errors" and is_error):
            logger.log(
                logging.DEBUG if is_probe else logging.INFO,
                "%s %s %d in %.1f ms, %s",
                scope["method"],
                path[:_MAX_PATH_CHARS],
                status,
                seconds * 1000,
                request_id,
            )


def _request_id(scope: Scope) -> str:
    for name, value in scope["headers"]:
        asked: str = value.decode("latin-1") if name == b"x-request-id" else ""
        if REQUEST_ID.fullmatch(asked):
            return asked
    return gen_request_id("req")
