"""Bodies of requests, read whole: each up to a bound, and all of those that are still coming up to another one."""

from __future__ import annotations

from collections import Counter

from starlette.types import Receive, Scope

from vfastml.engine.queue_room import leaves_room
from vfastml.engine.tenant import TENANT, Tenant
from vfastml.errors import InternalServerTooBusyError, RateLimitError, RequestTooLargeError, UnsupportedMediaTypeError

BYTES_ON_THE_WAY = 256 << 20
"""Of incomplete bodies together, beyond the small beginning that each may have."""
SMALL_BODY_BYTES = 64 << 10
_RETRY_AFTER_S = 5.0


class BodyReader:
    """Reads the bodies of one gateway. However many clients send a part and then wait, there is room for a small body:
    only what is large has to find room beside the others, and one API key leaves some to the others."""

    def __init__(self, max_bytes: int, max_bytes_on_the_way: int = BYTES_ON_THE_WAY) -> None:
        self._max_bytes = max_bytes
        self._max_on_the_way = max_bytes_on_the_way
        self._on_the_way = 0
        self._on_the_way_of: Counter[Tenant | None] = Counter()

    async def read(self, scope: Scope, receive: Receive) -> bytes | None:
        """The whole body; None when the client went away first. Raises RequestTooLargeError as soon as it is certain,
        by the announced length, or by count, whatever was announced; InternalServerTooBusyError if there is no room;
        RateLimitError if its key has taken its part of it; UnsupportedMediaTypeError for one that says to be
        compressed: what it would become has no bound."""
        if _is_encoded(scope):
            raise UnsupportedMediaTypeError
        if _announced_bytes(scope) > self._max_bytes:
            raise self._too_large()
        tenant = TENANT.get()
        body = bytearray()
        counted = 0
        try:
            while (message := await receive())["type"] != "http.disconnect":
                body += message.get("body", b"")
                if len(body) > self._max_bytes:
                    raise self._too_large()
                if not message.get("more_body", False):
                    return bytes(body)
                counted += self._make_room(tenant, max(0, len(body) - SMALL_BODY_BYTES) - counted)
            return None
        finally:
            self._count(tenant, -counted)

    def _make_room(self, tenant: Tenant | None, num_bytes: int) -> int:
        free = self._max_on_the_way - self._on_the_way
        if num_bytes > free:
            raise InternalServerTooBusyError("Too many large requests are coming in.", retry_after_s=_RETRY_AFTER_S)
        if tenant is not None and not leaves_room(self._on_the_way_of[tenant], num_bytes, free):
            raise RateLimitError("Too many large requests of this API key are coming in.", retry_after_s=_RETRY_AFTER_S)
        self._count(tenant, num_bytes)
        return num_bytes

    def _count(self, tenant: Tenant | None, change: int) -> None:
        self._on_the_way += change
        self._on_the_way_of[tenant] += change
        if not self._on_the_way_of[tenant]:
            del self._on_the_way_of[tenant]

    def _too_large(self) -> RequestTooLargeError:
        return RequestTooLargeError(f"The request body is larger than {self._max_bytes} bytes.")


def _announced_bytes(scope: Scope) -> int:
    for name, value in scope["headers"]:
        if name == b"content-length" and value.isdigit():
            return int(value[:20])
    return 0


def _is_encoded(scope: Scope) -> bool:
    codings = [value.strip().lower() for name, value in scope["headers"] if name == b"content-encoding"]
    return any(coding not in (b"", b"identity") for coding in codings)
