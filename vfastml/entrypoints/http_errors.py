"""Every error leaves as the same body, `{"error": {message, type, param, code}}`, with the status of its class; on
routes of another API, in that one's form."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any

import msgspec
from fastapi.exceptions import RequestValidationError
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from vfastml.engine.request_handles import REQUEST_NAME
from vfastml.entrypoints.anthropic.error_envelope import anthropic_error, is_anthropic
from vfastml.entrypoints.root_path import route_path
from vfastml.entrypoints.validation import first_problem
from vfastml.errors import (
    AuthenticationError,
    InternalServerError,
    InternalServerTooBusyError,
    InvalidRequestError,
    MethodNotAllowedError,
    NotFoundError,
    RateLimitError,
    RequestTooLargeError,
    UnsupportedMediaTypeError,
    UserError,
    VFastMLError,
)

logger = logging.getLogger(__name__)

SERVER_STATUS = "vfastml.server_status"
"""Where a request's scope has the status of an answer that the HTTP server gave in the app's place."""
ERROR_CODE = "vfastml.error_code"
"""Where the scope of a request has the code of the error that it was answered with. Not the error: its traceback has
the scope and the body, and such a circle of many MB waits for the garbage collector."""

_DEFAULT_RETRY_AFTER_S = 1.0
_CLIENTS_RETRY = (429, 504)
"""Statuses that client libraries retry unless told not to. A plain 500 is left to their judgement."""

_OF_STATUS: dict[int, type[VFastMLError]] = {
    401: AuthenticationError,
    404: NotFoundError,
    405: MethodNotAllowedError,
    413: RequestTooLargeError,
    415: UnsupportedMediaTypeError,
    429: RateLimitError,
    503: InternalServerTooBusyError,
}
_PHRASES = {status.value: status.phrase for status in HTTPStatus}
_NO_SUCH_ROUTE = "There is no such route."
_NOT_SENT_AS_JSON = "The body must be a JSON object, sent with the header 'Content-Type: application/json'."


class ApiJSONResponse(JSONResponse):
    """JSON, encoded by msgspec."""

    def render(self, content: Any) -> bytes:
        return msgspec.json.encode(content)


def error_body(error: VFastMLError) -> dict[str, Any]:
    """The envelope."""
    return {"error": {"message": error.message, "type": error.type, "param": error.param, "code": error.code}}


def error_response(
    error: VFastMLError, headers: Mapping[str, str] | None = None, *, scope: Scope | None = None
) -> JSONResponse:
    """The whole response: envelope, status, and the headers that tell a client whether and when to try again. The
    envelope is OpenAI's, unless the request of `scope` is for a route of another API."""
    if scope is not None:
        scope[ERROR_CODE] = error.code
    is_others = scope is not None and is_anthropic(route_path(scope))
    body = anthropic_error(error) if is_others else error_body(error)
    return ApiJSONResponse(body, error.status, {**_retry_headers(error), **(headers or {})})


def shown_to_client(error: Exception) -> VFastMLError:
    """The error itself if it is one of ours; else a fixed sentence, and the details in the log."""
    if isinstance(error, VFastMLError):
        return error
    logger.error("Request %s failed with an unforeseen exception.", REQUEST_NAME.get(), exc_info=error)
    return InternalServerError()


def install_error_handlers(app: Starlette) -> None:
    """What routes raise, our own errors and FastAPI's, leaves as the envelope. ErrorMiddleware sees to all the rest."""
    app.add_exception_handler(VFastMLError, _on_own_error)
    app.add_exception_handler(RequestValidationError, _on_validation_error)
    app.add_exception_handler(HTTPException, _on_http_exception)


class ErrorMiddleware:
    """Answers whatever the layers inside raise. It sits inside the layer that logs and adds headers, so that the answer
    to an unforeseen exception passes through it too."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        started = False

        async def watched_send(message: Message) -> None:
            nonlocal started
            started = True
            await send(message)

        try:
            await self.app(scope, receive, watched_send)
        except Exception as error:
            if started:
                raise
            await error_response(shown_to_client(error), scope=scope)(scope, receive, send)


def _retry_headers(error: VFastMLError) -> dict[str, str]:
    if error.status == 401:
        return {"www-authenticate": "Bearer"}
    if error.retryable:
        seconds = _DEFAULT_RETRY_AFTER_S if error.retry_after_s is None else error.retry_after_s
        return {
            "retry-after": str(max(1, math.ceil(seconds))),
            "retry-after-ms": str(max(1, math.ceil(seconds * 1000))),
        }
    return {"x-should-retry": "false"} if error.status in _CLIENTS_RETRY else {}


async def _on_own_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, VFastMLError)
    return error_response(error, scope=request.scope)


async def _on_validation_error(_: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    problems: Sequence[Mapping[str, Any]] = error.errors()
    if isinstance(error.body, bytes) and problems[0]["loc"] == ("body",):
        # FastAPI reads as JSON only what says that it is.
        return error_response(InvalidRequestError(_NOT_SENT_AS_JSON))
    # Its first element says which part of the request it is about: body, query, path ...
    return error_response(first_problem(problems, skip=1))


async def _on_http_exception(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    headers = dict(error.headers or {})
    if error.status_code < 200 or error.status_code in (204, 304):
        return Response(status_code=error.status_code, headers=headers)
    return error_response(_as_own_error(error), headers, scope=request.scope)


def _as_own_error(error: HTTPException) -> VFastMLError:
    cls = _OF_STATUS.get(error.status_code, UserError if error.status_code < 500 else InternalServerError)
    own = cls(_message_of(error))
    own.status = error.status_code
    return own


def _message_of(error: HTTPException) -> str | None:
    """None: nothing was said beyond the status."""
    if not isinstance(error.detail, str):
        return msgspec.json.encode(error.detail).decode()
    if error.detail != _PHRASES.get(error.status_code):
        return error.detail
    if error.status_code == 404:
        return _NO_SUCH_ROUTE
    return None if error.status_code in _OF_STATUS else f"{error.detail}."
