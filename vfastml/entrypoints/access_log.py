"""A log line for HTTP requests, and an `x-request-id` for each. Never a body, a query string or a header's value.

Lines of JSON have what is in the sentence as fields too (method, route, status and duration_ms), and what else is noted
of the request (see request_notes.py)."""

from __future__ import annotations

import logging
import time
from typing import Any

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from vfastml.engine.request_handles import REQUEST_NAME
from vfastml.engine.request_id import gen_request_id
from vfastml.entrypoints.auth import is_probe, tenant_of
from vfastml.entrypoints.http_errors import SERVER_STATUS
from vfastml.entrypoints.limits import REQUEST_ID
from vfastml.entrypoints.request_notes import NOTES, RequestNotes, route_template
from vfastml.entrypoints.root_path import route_path
from vfastml.utils.log_fields import LOG_FIELDS

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

        notes = RequestNotes(request_id)
        before = REQUEST_NAME.set(request_id), NOTES.set(notes), LOG_FIELDS.set({"request_id": request_id})
        try:
            await self.app(scope, receive, marked_send)
        finally:
            status = scope.get(SERVER_STATUS, status)
            self._log(scope, status, time.monotonic() - started_at, notes)
            REQUEST_NAME.reset(before[0])
            NOTES.reset(before[1])
            LOG_FIELDS.reset(before[2])

    def _log(self, scope: Scope, status: int, seconds: float, notes: RequestNotes) -> None:
        path = route_path(scope)
        of_probe = is_probe(scope)
        is_error = status >= 400 and status != CLIENT_CLOSED_REQUEST and not of_probe
        if self.shown == "all" or (self.shown == "errors" and is_error):
            logger.log(
                logging.DEBUG if of_probe else logging.INFO,
                "%s %s %d in %.1f ms, %s",
                scope["method"],
                path[:_MAX_PATH_CHARS],
                status,
                seconds * 1000,
                notes.request_id,
                extra={"fields": _fields(scope, status, seconds, notes)},
            )


def _fields(scope: Scope, status: int, seconds: float, notes: RequestNotes) -> dict[str, Any]:
    answered = {"method": scope["method"], "route": route_template(scope), "status": status}
    tenant = tenant_of(scope)
    key = {} if tenant is None else {"key": tenant.name}
    return {**answered, "duration_ms": round(seconds * 1000, 3), **key, **notes.fields()}


def _request_id(scope: Scope) -> str:
    for name, value in scope["headers"]:
        asked: str = value.decode("latin-1") if name == b"x-request-id" else ""
        if REQUEST_ID.fullmatch(asked):
            return asked
    return gen_request_id("req")
