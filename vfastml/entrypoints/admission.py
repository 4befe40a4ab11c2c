"""How many requests a gateway has open at a time, in all and for each key; what is more is told to come again."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Callable, Iterator

from starlette.types import ASGIApp, Receive, Scope, Send

from vfastml.engine.queue_room import leaves_room
from vfastml.engine.tenant import TENANT, Tenant
from vfastml.entrypoints.auth import needs_no_key
from vfastml.entrypoints.cancel import is_cancel
from vfastml.entrypoints.keys.key_limits import KeyLimits
from vfastml.errors import RateLimitError

MAX_CANCELS = 256
MAX_CANCELS_PER_KEY = 32
"""Cancels under way: a few milliseconds each, or seconds when a model server is silent."""

_USE_NO_TOKENS = frozenset({"GET", "HEAD", "DELETE"})
_RETRY_AFTER_S = 1.0


class AdmissionMiddleware:
    """Counts open requests, from their headers to the end of their answers, and holds keys to their rates; what needs
    no key aside. Cancels have places of their own and no rate: they are needed most when all else is used up. It sits
    where the caller's key is known and the body is not read yet: a refused request costs no more than its headers.

    Raises RateLimitError.
    """

    def __init__(self, app: ASGIApp, max_open: int, limits: KeyLimits) -> None:
        self.app = app
        self._limits = limits
        self._requests = _Places("requests", max_open, limits.max_open, are_shared=True)
        self._cancels = _Places("cancels", MAX_CANCELS, lambda _: MAX_CANCELS_PER_KEY, are_shared=False)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or needs_no_key(scope):
            await self.app(scope, receive, send)
            return
        tenant = TENANT.get()
        if is_cancel(scope):
            with self._cancels.one(tenant):
                await self.app(scope, receive, send)
            return
        with self._requests.one(tenant):
            if tenant is not None:
                self._limits.let_in(tenant, uses_tokens=scope["method"] not in _USE_NO_TOKENS)
            await self.app(scope, receive, send)


class _Places:
    def __init__(self, what: str, most: int, most_of: Callable[[Tenant], int], *, are_shared: bool) -> None:
        """`are_shared`: whatever the bound of one key, some are left for others."""
        self._what = what
        self._most = most
        self._most_of = most_of
        self._are_shared = are_shared
        self._open = 0
        self._open_of: Counter[Tenant] = Counter()

    @contextlib.contextmanager
    def one(self, key: Tenant | None) -> Iterator[None]:
        self._check(key)
        self._count(key, 1)
        try:
            yield
        finally:
            self._count(key, -1)

    def _check(self, key: Tenant | None) -> None:
        if self._open >= self._most:
            raise RateLimitError(f"The server has as many {self._what} open as it takes.", retry_after_s=_RETRY_AFTER_S)
        if key is not None and self._are_shared and not leaves_room(self._open_of[key], 1, self._most - self._open):
            raise RateLimitError(
                f"This API key has as many {self._what} open as leave room for others.", retry_after_s=_RETRY_AFTER_S
            )
        if key is not None and 0 < (most := self._most_of(key)) <= self._open_of[key]:
            raise RateLimitError(
                f"This API key has as many {self._what} open as it may: {most}.", retry_after_s=_RETRY_AFTER_S
            )

    def _count(self, key: Tenant | None, change: int) -> None:
        self._open += change
        if key is not None:
            self._open_of[key] += change
