"""How much of anything a request may hold. Each bound is checked before the work it bounds."""

from __future__ import annotations

from starlette.types import Receive, Scope

from vfastml.errors import RequestTooLargeError

MAX_BODY_BYTES = 16 << 20
MAX_MESSAGES = 4096
MAX_CONTENT_PARTS = 4096
MAX_PROMPTS = 128
MAX_PROMPT_TOKENS = 1 << 20
"""Token ids in one prompt, or to detokenize; far more than any model's context."""
MAX_CHOICES = 128
MAX_TOTAL_CHOICES = 256
"""Prompts times n."""
MAX_STOP_STRINGS = 16
MAX_STOP_CHARS = 1024
MAX_NAME_CHARS = 512
"""Model names, cache salts."""


async def read_body(scope: Scope, receive: Receive, max_bytes: int) -> bytes | None:
    """The whole body; None when the client went away first. Raises RequestTooLargeError as soon as it is certain: by
    the announced length, or by count, whatever was announced."""
    if _announced_bytes(scope) > max_bytes:
        raise _too_large(max_bytes)
    body = bytearray()
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            return None
        body += message.get("body", b"")
        if len(body) > max_bytes:
            raise _too_large(max_bytes)
        if not message.get("more_body", False):
            return bytes(body)


def _announced_bytes(scope: Scope) -> int:
    for name, value in scope["headers"]:
        if name == b"content-length" and value.isdigit():
            return int(value[:20])
    return 0


def _too_large(max_bytes: int) -> RequestTooLargeError:
    return RequestTooLargeError(f"The request body is larger than {max_bytes} bytes.")
