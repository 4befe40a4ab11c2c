"""Errors in Anthropic's form."""

from __future__ import annotations

from typing import Any

from vfastml.engine.request_handles import REQUEST_NAME
from vfastml.errors import VFastMLError

PATH = "/v1/messages"
"""It and what is below it answer in this form."""

_TYPES = {
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    503: "overloaded_error",
    504: "timeout_error",
}
"""By status; others are the client's fault below 500, and ours from there on."""


def is_anthropic(path: str) -> bool:
    """Whether that route answers in this form."""
    return path == PATH or path.startswith(f"{PATH}/")


def anthropic_error(error: VFastMLError) -> dict[str, Any]:
    """The body. The field that an error is about stands in its message alone."""
    kind = _TYPES.get(error.status, "invalid_request_error" if error.status < 500 else "api_error")
    return {"type": "error", "error": {"type": kind, "message": error.message}, "request_id": REQUEST_NAME.get()}
