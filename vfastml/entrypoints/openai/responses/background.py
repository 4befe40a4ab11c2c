"""Responses that grow while nobody waits for them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import msgspec

from vfastml.engine.dispatch_task import DispatchTask
from vfastml.engine.queue_room import leaves_room
from vfastml.entrypoints.http_errors import shown_to_client
from vfastml.entrypoints.limits import MAX_BACKGROUND, MAX_BACKGROUND_BYTES
from vfastml.entrypoints.openai.responses.event_log import EventLog
from vfastml.entrypoints.openai.responses.growing_response import GrowingResponse
from vfastml.entrypoints.openai.responses.reading import read, tell_nobody
from vfastml.entrypoints.openai.responses.response_store import Owner
from vfastml.entrypoints.openai.responses.turn import Turn
from vfastml.errors import RateLimitError, RequestCancelledError


class RunningResponse:
    """One that grows in a task of its own. With a log, its events are told there."""

    def __init__(self, growing: GrowingResponse, task: DispatchTask, turn: Turn, log: EventLog | None) -> None:
        self.growing = growing
        self.context = turn.context
        self.num_bytes = turn.num_bytes
        self.log = log
        self.is_forgotten = False
        """Nobody wants it any more."""
        self._task = task
        self._tell = tell_nobody if log is None else log.add
        self._tell(growing.wait())
        self._reader = asyncio.create_task(self._read())

    @property
    def body(self) -> bytes:
        """JSON, as far as it has come."""
        return msgspec.json.encode(self.growing.body())

    def when_ended(self, then: Callable[[], None]) -> None:
        """Calls it, however the response ends: also when it was stopped before the reader had begun."""

        def settle(reader: asyncio.Task[None]) -> None:
            if reader.cancelled():
                self._tell(self.growing.cancel())
                self._task.cancel()
            if self.log is not None:
                self.log.close()
            then()

        self._reader.add_done_callback(settle)

    async def stop(self) -> None:
        """Returns once it has ended, and all that was to be called then has been."""
        self._reader.cancel()
        await asyncio.wait([self._reader])

    async def forget(self) -> None:
        """Stop it. It is not kept, even if nobody waits for that."""
        self.is_forgotten = True
        await self.stop()

    async def _read(self) -> None:
        try:
            await read(self._task, self.growing, self._tell)
        except RequestCancelledError:
            self._tell(self.growing.cancel())
        except Exception as error:
            self._tell(self.growing.fail(shown_to_client(error)))


class BackgroundResponses:
    """Those that are under way in this gateway; no more of them than `most` in all, and no more of what they were sent
    than `max_bytes`, unless it is one alone."""

    def __init__(self, most: int = MAX_BACKGROUND, max_bytes: int = MAX_BACKGROUND_BYTES) -> None:
        self._most = most
        self._max_bytes = max_bytes
        self._running: dict[tuple[Owner, str], RunningResponse] = {}

    def check_room(self, turn: Turn, most_of_owner: int) -> None:
        """Raises RateLimitError if there are as many as may be, of all or of an owner with a key (0 is no bound), or if
        the turn would be too much beside them."""
        num_bytes = turn.num_bytes + sum(running.num_bytes for running in self._running.values())
        if len(self._running) >= self._most or (self._running and num_bytes > self._max_bytes):
            raise RateLimitError("As much is in the background as may be.", retry_after_s=1.0)
        of_owner = sum(other == turn.owner for other, _ in self._running)
        if turn.owner is not None and not leaves_room(of_owner, 1, self._most - len(self._running)):
            raise RateLimitError("This API key has as much in the background as leaves room.", retry_after_s=1.0)
        if turn.owner is not None and 0 < most_of_owner <= of_owner:
            message = "This API key has as many responses in the background as it may have requests open."
            raise RateLimitError(message, retry_after_s=1.0)

    def add(self, owner: Owner, running: RunningResponse, keep: Callable[[], None]) -> None:
        """Until it has ended; then it is kept, unless it is forgotten."""

        def then() -> None:
            del self._running[owner, running.growing.id]
            if not running.is_forgotten:
                keep()

        self._running[owner, running.growing.id] = running
        running.when_ended(then)

    def get(self, owner: Owner, response_id: str) -> RunningResponse | None:
        """The owner's response of that id, if it is under way."""
        return self._running.get((owner, response_id))

    async def close(self) -> None:
        """Stop all."""
        await asyncio.gather(*[running.stop() for running in self._running.values()])
