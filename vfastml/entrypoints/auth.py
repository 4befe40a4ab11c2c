"""API keys: every route asks for one, except those that a load balancer must reach and CORS preflight."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Iterator, Sequence

from starlette.types import ASGIApp, Receive, Scope, Send

from vfastml.engine.tenant import TENANT, Tenant
from vfastml.entrypoints.root_path import route_path
from vfastml.errors import AuthenticationError

FREE_PATHS = frozenset({"/livez", "/readyz", "/startupz", "/health"})


class KeyRing:
    """The known keys, kept as digests. Empty: everybody may come in, with any token or none."""

    def __init__(self, keys: Sequence[str]) -> None:
        self._digests = [_digest(key.encode()) for key in keys]

    def __bool__(self) -> bool:
        return bool(self._digests)

    def owner(self, candidate: bytes) -> Tenant | None:
        """Whose key was offered, or None. All keys are always compared: timing tells nothing."""
        offered = _digest(candidate)
        found = [digest for digest in self._digests if hmac.compare_digest(offered, digest)]
        return Tenant(f"key-{found[0].hex()[:8]}", found[0]) if found else None


def is_probe(scope: Scope) -> bool:
    """An HTTP request that is answered whoever asks, and however busy the gateway is."""
    return route_path(scope) in FREE_PATHS


class AuthMiddleware:
    """Refuses by default: it looks at the path itself, before any routing, so a new route is guarded from the start.
    Whatever is dispatched for a caller with a key is dispatched in its name: see engine/tenant.py.

    Raises AuthenticationError.
    """

    def __init__(self, app: ASGIApp, keys: KeyRing) -> None:
        self.app = app
        self.keys = keys

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "websocket" and self.keys:
            # Nothing of ours speaks WebSocket, so no key opens one.
            await send({"type": "websocket.close", "code": 1008})
            return
        if scope["type"] != "http" or not self.keys or _is_free(scope):
            await self.app(scope, receive, send)
            return
        before = TENANT.set(self._tenant(scope))
        try:
            await self.app(scope, receive, send)
        finally:
            TENANT.reset(before)

    def _tenant(self, scope: Scope) -> Tenant:
        offered = list(offered_keys(scope))
        owners = [owner for owner in map(self.keys.owner, offered) if owner is not None]
        if owners:
            return owners[0]
        raise AuthenticationError("The API key is not valid." if offered else "An API key is required.")


def _is_free(scope: Scope) -> bool:
    return is_probe(scope) or scope["method"] == "OPTIONS"


def offered_keys(scope: Scope) -> Iterator[bytes]:
    """All that a request says are keys."""
    for name, value in scope["headers"]:
        if name == b"x-api-key":
            yield value.strip()
        elif name == b"authorization":
            scheme, _, token = value.partition(b" ")
            if scheme.lower() == b"bearer":
                yield token.strip()


def _digest(key: bytes) -> bytes:
    return hashlib.sha256(key).digest()
