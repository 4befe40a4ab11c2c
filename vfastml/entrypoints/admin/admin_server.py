"""The admin app on a listener of its own, beside the gateway's."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Iterator

import uvicorn
from starlette.types import ASGIApp

from vfastml.entrypoints.http_protocol import ConnectionBounds
from vfastml.entrypoints.uvicorn_config import uvicorn_config

_MAX_CONNECTIONS = 64
"""Of operators and their tools; the rest of this process's descriptors is for clients."""


class AdminServer(uvicorn.Server):
    """Serves in the event loop of another server, whose part signals are, and ends when that one does."""

    def __init__(self, app: ASGIApp, listener: socket.socket) -> None:
        super().__init__(uvicorn_config(app, ConnectionBounds(_MAX_CONNECTIONS), lifespan="off"))
        self._listener = listener
        self._serving: asyncio.Task[None] | None = None

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """None."""
        yield

    def begin(self) -> None:
        """Answer from now on; what has connected before is answered too."""
        self._serving = asyncio.create_task(self.serve([self._listener]))

    async def end(self) -> None:
        """Answers under way have a second to get out."""
        self.should_exit = True
        if self._serving is not None:
            await self._serving
