"""Responses that grow while nobody waits for them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from vfastml.engine.dispatch_task import DispatchTask
from vfastml.entrypoints.http_errors import shown_to_client
from vfastml.entrypoints.limits import MAX_BACKGROUND
from vfastml.entrypoints.openai.responses.growing_response import GrowingResponse
from vfastml.entrypoints.openai.responses.response_store import Owner
from vfastml.errors import RateLimitError


class BackgroundResponses:
    """Those that are under way in this gateway, each in a task of its own, which ends with its response, when it is
    cancelled, or when all are closed."""

    def __init__(self, most: int = MAX_BACKGROUND) -> None:
        self._most = most
        self._running: dict[tuple[Owner, str], _Running] = {}

    def check_room(self) -> None:
        """Raises RateLimitError if there are as many as may be."""
        if len(self._running) >= self._most:
            raise RateLimitError("As many responses are in the background as may be.", retry_after_s=1.0)

    def start(
        self, owner: Owner, growing: GrowingResponse, task: DispatchTask, keep: Callable[[GrowingResponse], None]
    ) -> None:
        """Let it grow by what comes of the task; `keep` gets it when it has ended, however it ends."""
        running = _Running(growing, task)

        def on_end(_: asyncio.Task[None]) -> None:
            del self._running[owner, growing.id]
            running.settle()
            keep(growing)

        self._running[owner, growing.id] = running
        running.reader.add_done_callback(on_end)

    def get(self, owner: Owner, response_id: str) -> GrowingResponse | None:
        """The owner's response of that id, if it is under way."""
        running = self._running.get((owner, response_id))
        return None if running is None else running.growing

    async def cancel(self, owner: Owner, response_id: str) -> GrowingResponse | None:
        """Stop it; it has ended and been kept when this returns. None: it is not under way."""
        running = self._running.get((owner, response_id))
        if running is None:
            return None
        await running.stop()
        return running.growing

    async def close(self) -> None:
        """Stop all."""
        await asyncio.gather(*[running.stop() for running in self._running.values()])


class _Running:
    def __init__(self, growing: GrowingResponse, task: DispatchTask) -> None:
        self.growing = growing
        self._task = task
        self.reader = asyncio.create_task(self._read())

    async def stop(self) -> None:
        self.reader.cancel()
        # Waits for what is called when it is done, too: that was there first.
        await asyncio.wait([self.reader])

    def settle(self) -> None:
        """Once the reader is done: also one that was cancelled before it had begun."""
        if self.reader.cancelled():
            self.growing.cancel()
        self._task.cancel()

    async def _read(self) -> None:
        try:
            await self.growing.read(self._task)
        except Exception as error:
            self.growing.fail(shown_to_client(error))
