"""Several gateway processes on one port: the process that starts them, replaces them and ends them."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import sys
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import replace

from vfastml.entrypoints.admin.admin_address import admin_url, claim_admin
from vfastml.entrypoints.admin.admin_hooks import AdminHooks
from vfastml.entrypoints.gateway_config import GatewayConfig
from vfastml.entrypoints.greeting import Greeting
from vfastml.entrypoints.keys.balances import shared_memory
from vfastml.entrypoints.keys.key_ring import KeyRing
from vfastml.entrypoints.listening import claim, reserve
from vfastml.entrypoints.metrics.shared_folder import SharedFolder, shared_folder
from vfastml.entrypoints.supervisor_line import READY, SERVING, WorkerOrder
from vfastml.entrypoints.worker_process import WorkerProcess
from vfastml.utils.logging import configure_logging

logger = logging.getLogger(__name__)

_SIGNALS = (signal.SIGINT, signal.SIGTERM)
_FIRST_PAUSE_S = 0.1
_LONGEST_PAUSE_S = 5.0
_SETTLED_S = 30.0
"""A worker that has lived so long did not end of a bad start: its successor does not wait longer than the first."""
_PATIENCE_S = 10.0
"""For a worker to end, beyond its grace time."""


def run_workers(command: Sequence[str], count: int, prog: str, config: GatewayConfig, host: str, port: int) -> int:
    """Serve with `count` processes of `command`, each a gateway of its own, until SIGTERM or SIGINT. Returns the exit
    status, or leaves by SystemExit 1 before anything has started, when the address cannot be had."""
    configure_logging(config.log_level, config.log_format, "supervisor")
    with contextlib.ExitStack() as stack:
        reserved = stack.enter_context(claim(reserve, host, port, config))
        # As they are here: a name could mean another address to a later worker, and port 0 another port.
        address, chosen_port = reserved.getsockname()[:2]
        admin = claim_admin(reserve, port and chosen_port, config, _admin_hooks(config))
        greeting = Greeting(host, reserved, with_key=config.asks_for_keys, admin_url=admin_url(config, admin))
        if admin is None:
            settled, folder = replace(config, admin=False), None
        else:
            admin_host, admin_port = stack.enter_context(admin).getsockname()[:2]
            settled = replace(config, admin_host=admin_host, admin_port=admin_port)
            folder = stack.enter_context(_folder())
        balances = stack.enter_context(shared_memory())
        order = WorkerOrder(prog, address, chosen_port, settled, balances.fileno())
        return Supervisor(command, order, count, greeting, folder).run()


def _admin_hooks(config: GatewayConfig) -> AdminHooks:
    """Leaves by SystemExit 1, with one line on stderr, when the key file is not right."""
    try:
        return AdminHooks(KeyRing(config.api_keys, config.api_key_file).is_admin)
    except ValueError as error:
        sys.exit(f"Cannot start: {error}.")


@contextlib.contextmanager
def _folder() -> Iterator[SharedFolder]:
    """For what the workers count. Leaves by SystemExit 1, with one line on stderr, when there can be none."""
    with contextlib.ExitStack() as stack:
        try:
            folder = stack.enter_context(shared_folder())
        except OSError as error:
            sys.exit(f"There is no room for the metrics of several processes: {error.strerror}.")
        yield folder


class Supervisor:
    """Keeps `count` workers running, each a process of `command` that is given `order`. The first one goes ahead, so
    that what is wrong with all of them is said once. Should this process die, its workers notice and end. They count in
    the `folder`, if there is one."""

    def __init__(
        self,
        command: Sequence[str],
        order: WorkerOrder,
        count: int,
        greeting: Greeting,
        folder: SharedFolder | None = None,
    ) -> None:
        self._command = command
        self._folder = folder
        self._order = order
        self._count = count
        self._events: set[bytes] = set()
        self._greetings = deque([(SERVING, greeting.tell_address), (READY, greeting.tell_example)])
        self._workers: set[WorkerProcess] = set()
        self._places = asyncio.TaskGroup()
        self._stopping = asyncio.Event()
        self._status = 0

    def run(self) -> int:
        """Until SIGTERM or SIGINT, which each worker gets too: the first lets them finish what is open, a second ends
        them. Returns the exit status: 0 then, or that of the first worker if it could not start."""
        return asyncio.run(self._run())

    async def _run(self) -> int:
        for number in _SIGNALS:
            asyncio.get_running_loop().add_signal_handler(number, self._on_signal)
        async with self._places:
            self._places.create_task(self._fill_place())
        return self._status

    async def _fill_place(self) -> None:
        """Runs one worker after the other."""
        clock = asyncio.get_running_loop().time
        pause_s = _FIRST_PAUSE_S
        while not self._stopping.is_set():
            began = clock()
            status = await self._run_worker()
            if SERVING not in self._events:
                self._status = 0 if self._stopping.is_set() else status
                return
            if clock() - began > _SETTLED_S:
                pause_s = _FIRST_PAUSE_S
            await self._pause(pause_s)
            pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)

    async def _run_worker(self) -> int:
        """Its exit status, or 1 if there could be no process."""
        try:
            environment = None if self._folder is None else self._folder.environment()
            worker = await WorkerProcess.start(self._command, environment, [self._order.shared_balances])
        except OSError as error:
            logger.error("cannot start a worker: %s", error.strerror)
            return 1
        self._workers.add(worker)
        if self._stopping.is_set():  # since a moment ago
            worker.send_signal(signal.SIGTERM)
        await worker.give(self._order)
        while event := await worker.next_event():
            self._on_event(event)
        status = await worker.wait()
        self._workers.remove(worker)
        if self._folder is not None:
            self._folder.forget(worker.pid)
        if not self._stopping.is_set():
            logger.error("worker %d has ended with status %d", worker.pid, status)
        return status

    async def _pause(self, seconds: float) -> None:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._stopping.wait(), seconds)

    def _on_event(self, event: bytes) -> None:
        is_new = event not in self._events
        self._events.add(event)
        # In order: a model may be there before the worker answers connections.
        while self._greetings and self._greetings[0][0] in self._events:
            self._greetings.popleft()[1]()
        if is_new and event == SERVING:
            for _ in range(self._count - 1):
                self._places.create_task(self._fill_place())

    def _on_signal(self) -> None:
        config = self._order.config
        grace_s = 0.0 if self._stopping.is_set() else config.drain_delay_s + config.drain_timeout_s
        self._stopping.set()
        for worker in self._workers:
            worker.send_signal(signal.SIGTERM)
        asyncio.get_running_loop().call_later(grace_s + _PATIENCE_S, self._kill_all)

    def _kill_all(self) -> None:
        for worker in self._workers:
            logger.error("worker %d does not end: it is killed", worker.pid)
            worker.send_signal(signal.SIGKILL)
