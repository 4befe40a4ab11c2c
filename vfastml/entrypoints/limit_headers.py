"""What is left of a key's limits, on every answer to it."""

from __future__ import annotations

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from vfastml.entrypoints.auth import tenant_of
from vfastml.entrypoints.keys.key_limits import KeyLimits


class LimitHeadersMiddleware:
    """Sits outside of the layer that answers errors, so that refusals have the headers too. Who calls is known by then:
    the layer inside that asks for the key notes it in the scope."""

    def __init__(self, app: ASGIApp, limits: KeyLimits) -> None:
        self.app = app
        self.limits = limits

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return

        async def told_send(message: Message) -> None:
            tenant = tenant_of(scope)
            if message["type"] == "http.response.start" and tenant is not None:
                message = {**message, "headers": [*message.get("headers", ()), *self.limits.headers(tenant)]}
            await send(message)

        await self.app(scope, receive, told_send)
