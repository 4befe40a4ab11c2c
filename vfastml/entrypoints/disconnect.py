"""A client that goes away cancels its handler, on every route, so that nobody computes an answer without a reader."""

from __future__ import annotations

import asyncio

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from vfastml.entrypoints.auth import needs_no_key
from vfastml.entrypoints.bodies import SMALL_BODY_BYTES, BodyReader


class DisconnectMiddleware:
    """Reads the body, hands it to the app in a task of its own, and from then on listens for the client going away:
    only one reader can wait on `receive`, and a route that awaits a model does not.

    Raises RequestTooLargeError for a body over `max_body_bytes`, or one that is not small where no key is needed, and
    what else BodyReader raises.
    """

    def __init__(self, app: ASGIApp, max_body_bytes: int) -> None:
        self.app = app
        self._bodies = BodyReader(max_body_bytes)
        self._small_bodies = BodyReader(min(max_body_bytes, SMALL_BODY_BYTES))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        # Nobody without a key takes room from those with one.
        bodies = self._small_bodies if needs_no_key(scope) else self._bodies
        body = await bodies.read(scope, receive)
        if body is not None:
            await _Exchange(body, receive, send).run(self.app, scope)


class _Exchange:
    def __init__(self, body: bytes, receive: Receive, send: Send) -> None:
        self._body: bytes | None = body
        self._receive = receive
        self._send = send
        self._client_gone = asyncio.Event()
        self._answered = False

    async def run(self, app: ASGIApp, scope: Scope) -> None:
        handler = asyncio.ensure_future(app(scope, self.receive, self.send))
        watcher = asyncio.ensure_future(self._watch(handler))
        try:
            await handler
        except asyncio.CancelledError:
            # Either the watcher cancelled the handler, which ends here, or somebody cancelled us both.
            if not self._client_gone.is_set():
                raise
        finally:
            handler.cancel()
            watcher.cancel()

    async def receive(self) -> Message:
        """What the app receives: the body once, then nothing until the client is gone."""
        if self._body is not None:
            body, self._body = self._body, None
            return {"type": "http.request", "body": body, "more_body": False}
        await self._client_gone.wait()
        return {"type": "http.disconnect"}

    async def send(self, message: Message) -> None:
        # Noted before it is sent: the server may report a disconnect as soon as the last byte is out.
        self._answered = message["type"] == "http.response.body" and not message.get("more_body", False)
        await self._send(message)

    async def _watch(self, handler: asyncio.Future[None]) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass
        self._client_gone.set()
        if not self._answered:
            handler.cancel()
