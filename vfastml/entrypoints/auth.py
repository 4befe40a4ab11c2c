"""API keys: every route asks for one, except those that a load balancer must reach and CORS preflight."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice

from starlette.types import ASGIApp, Receive, Scope, Send

from vfastml.engine.tenant import TENANT, Tenant
from vfastml.entrypoints.keys.key_ring import KeyRing
from vfastml.entrypoints.root_path import route_path
from vfastml.errors import AuthenticationError

FREE_PATHS = frozenset({"/livez", "/readyz", "/startupz", "/health"})


_MOST_OFFERED = 2
"""One in each header that may have one."""
_TENANT = "vfastml.tenant"
"""Where a request's scope has who sent it."""


def tenant_of(scope: Scope) -> Tenant | None:
    """Who sent it, from the moment that its key is known: for layers outside of that."""
    found: Tenant | None = scope.get(_TENANT)
    return found


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
        if scope["type"] == "websocket" and not self.keys.is_open:
            # Nothing of ours speaks WebSocket, so no key opens one.
            await send({"type": "websocket.close", "code": 1008})
            return
        if scope["type"] != "http" or self.keys.is_open or needs_no_key(scope):
            await self.app(scope, receive, send)
            return
        scope[_TENANT] = tenant = self._tenant(scope)
        before = TENANT.set(tenant)
        try:
            await self.app(scope, receive, send)
        finally:
            TENANT.reset(before)

    def _tenant(self, scope: Scope) -> Tenant:
        offered = offered_keys(scope)
        owners = [owner for owner in map(self.keys.owner, offered) if owner is not None]
        if owners:
            return owners[0]
        raise AuthenticationError("The API key is not valid." if offered else "An API key is required.")


def needs_no_key(scope: Scope) -> bool:
    """Probes and CORS preflight."""
    return is_probe(scope) or scope["method"] == "OPTIONS"


def offered_keys(scope: Scope) -> list[bytes]:
    """All that a request says are keys. Raises AuthenticationError if they are more than clients send: each is compared
    with all that there are."""
    offered = list(islice(_said_to_be_keys(scope), _MOST_OFFERED + 1))
    if len(offered) > _MOST_OFFERED:
        raise AuthenticationError("One API key is enough.")
    return offered


def _said_to_be_keys(scope: Scope) -> Iterator[bytes]:
    for name, value in scope["headers"]:
        if name == b"x-api-key":
            yield value.strip()
        elif name == b"authorization":
            scheme, _, token = value.partition(b" ")
            if scheme.lower() == b"bearer":
                yield token.strip()
