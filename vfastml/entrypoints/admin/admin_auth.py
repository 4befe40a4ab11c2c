"""Who may use the admin listener where other machines reach it."""

from __future__ import annotations

from starlette.types import ASGIApp, Receive, Scope, Send

from vfastml.entrypoints.admin.admin_hooks import AdminHooks
from vfastml.entrypoints.auth import offered_keys
from vfastml.errors import AuthenticationError


class AdminAuthMiddleware:
    """Lets in who offers an operator's key, on every path and whatever the method; without `always` all, while no key
    has ever been an operator's. When the last one is revoked nobody comes in any more.

    Raises AuthenticationError.
    """

    def __init__(self, app: ASGIApp, hooks: AdminHooks, always: bool) -> None:
        self.app = app
        self._hooks = hooks
        self._asks = always

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self._asks = self._asks or self._hooks.has_admin
        if scope["type"] == "http" and self._asks:
            self._check(offered_keys(scope))
        await self.app(scope, receive, send)

    def _check(self, offered: list[bytes]) -> None:
        admins = [key for key in offered if self._hooks.is_admin(key)]  # all are looked at: timing tells nothing
        if not admins:
            raise AuthenticationError(
                "The API key is not an operator's." if offered else "An operator's API key is required."
            )
