"""A gateway as a process: its signals and its orderly end."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import socket
import threading
from collections.abc import Awaitable, Callable, Iterator

import uvicorn
from starlette.types import ASGIApp

from vfastml.entrypoints.admin.admin_server import AdminServer
from vfastml.entrypoints.descriptors import connections_that_fit, raise_descriptor_limit
from vfastml.entrypoints.drain import DrainGate
from vfastml.entrypoints.http_protocol import ConnectionBounds
from vfastml.entrypoints.limits import BODY_TIMEOUT_S
from vfastml.entrypoints.supervisor_line import SERVING, SupervisorLine
from vfastml.entrypoints.uvicorn_config import LAST_WORDS_S, uvicorn_config
from vfastml.utils.garbage import settle_garbage_collection

logger = logging.getLogger(__name__)

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class GatewayServer(uvicorn.Server):
    """uvicorn, with signals of our own. On the first one it is not ready any more; `drain_delay_s` later the gate
    closes: new requests are refused while open ones go on, for `drain_timeout_s`; then `fail_open` ends the rest. A
    second one ends all waiting. Both exit with 0. The end of the `supervisor` is like two signals.

    It raises this process's limit of open files as far as it can, and takes no more connections than fit. `on_refused`
    is told the status of each answer that it gives itself. The `admin` server begins and ends with it.
    """

    def __init__(
        self,
        app: ASGIApp,
        gate: DrainGate,
        drain_timeout_s: float,
        fail_open: Callable[[], Awaitable[None]],
        supervisor: SupervisorLine | None = None,
        *,
        drain_delay_s: float = 0.0,
        body_timeout_s: float = BODY_TIMEOUT_S,
        on_refused: Callable[[int], None] = lambda _: None,
        admin: AdminServer | None = None,
    ) -> None:
        raise_descriptor_limit()
        bounds = ConnectionBounds(connections_that_fit(), body_timeout_s, on_refused)
        super().__init__(uvicorn_config(app, bounds, lifespan="on"))
        self._gate = gate
        self._drain_delay_s = drain_delay_s
        self._drain_timeout_s = drain_timeout_s
        self._fail_open = fail_open
        self._supervisor = supervisor
        self._admin = admin
        self._grace: asyncio.Task[None] | None = None
        self._draining: asyncio.Task[None] | None = None

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self._admin is not None:
            self._admin.begin()
        settle_garbage_collection()
        if self._supervisor is not None:
            self._supervisor.tell(SERVING)
            asyncio.get_running_loop().add_reader(self._supervisor, self._on_supervisor_gone, self._supervisor)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        admin_ends = [] if self._admin is None else [self._admin.end()]
        await asyncio.gather(super().shutdown(sockets), *admin_ends)

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """uvicorn's own version kills the process with the signal at the end, and refuses connections at its start."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        loop = asyncio.get_running_loop()
        for signal_number in _SIGNALS:
            loop.add_signal_handler(signal_number, self._on_signal)
        try:
            yield
        finally:
            for signal_number in _SIGNALS:
                loop.remove_signal_handler(signal_number)

    def _on_signal(self) -> None:
        if self._grace is None:
            self._gate.announce_close()
            self._grace = asyncio.create_task(self._let_finish())
            self._draining = asyncio.create_task(self._drain(self._grace))
        else:
            self._grace.cancel()

    def _on_supervisor_gone(self, supervisor: SupervisorLine) -> None:
        # Nobody would replace or stop this process, and it would keep the port from the next supervisor.
        logger.error("The supervisor has gone.")
        asyncio.get_running_loop().remove_reader(supervisor)
        self._on_signal()
        self._on_signal()

    async def _let_finish(self) -> None:
        if self._drain_delay_s:
            logger.info("Shutting down: new requests are taken for %g s more.", self._drain_delay_s)
            await asyncio.sleep(self._drain_delay_s)
        self._gate.close()
        logger.info("Shutting down: %d open requests.", self._gate.open_requests)
        await self._gate.wait_idle(self._drain_timeout_s)

    async def _drain(self, grace: asyncio.Task[None]) -> None:
        await asyncio.wait([grace])
        self._gate.close()  # a second signal may have come before the first one had done it
        try:
            if self._gate.open_requests:
                logger.warning("%d requests are still open: they are failed.", self._gate.open_requests)
                await self._fail_open()
                await self._gate.wait_idle(LAST_WORDS_S)
        finally:
            self.should_exit = True
