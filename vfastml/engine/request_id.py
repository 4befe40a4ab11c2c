"""Names for requests."""

from __future__ import annotations

from uuid import uuid4


def gen_request_id(prefix: str) -> str:
    """An id that no other gateway or process has: `prefix-` and 32 random hexadecimal digits."""
    return f"{prefix}-{uuid4().hex}"
