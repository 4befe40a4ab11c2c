"""What wakes the reader of an answer."""

from __future__ import annotations

import asyncio


class Progress:
    """Lets one coroutine sleep until something has come; what comes while it is awake is not missed. An asyncio.Event
    does this for any number of sleepers, in twice the time, and this is done for every token."""

    __slots__ = ("_sleeper", "has_come")

    def __init__(self) -> None:
        self.has_come = True
        """Whether there is something that `wait` has not told of; at first, whatever was before."""
        self._sleeper: asyncio.Future[None] | None = None

    def note(self) -> None:
        """Something has come."""
        self.has_come = True
        if self._sleeper is not None and not self._sleeper.done():
            self._sleeper.set_result(None)

    async def wait(self) -> None:
        """Until something has come since the last call."""
        if not self.has_come:
            self._sleeper = asyncio.get_running_loop().create_future()
            await self._sleeper
        self.has_come = False
