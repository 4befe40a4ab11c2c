"""Who may use the admin listener where other machines reach it."""

from __future__ import annotations

from starlette.types import ASGIApp, Receive, Scope, Send

from vfastml.entrypoints.admin.admin_hooks import AdminHooks
from vfastml.entrypoints.auth import offered_keys
from vfastml.errors import AuthenticationError


class AdminAuthMiddleware:
    """Lets in who offers an operator's key, on every path and whatever the method; all, if no key is an operator's.

    Raises AuthenticationError.
    """

    def __init__(self, app: ASGIApp, hooks: AdminHooks) -> None:
        self.app = app
        self._hooks = hooks

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and self._hooks.has_admin:
            self._check(list(offered_keys(scope)))
        await self.app(scope, receive, send)

    def _check(self, offered: list[bytes]) -> None:
        admins = [key for key in offered if self._hooks.is_admin(key)]  # all are looked at: timing tells nothing
        if not admins:
            raise AuthenticationError(
                "The API key is not an operator's." if offered else "An operator's API key is required."
            )
