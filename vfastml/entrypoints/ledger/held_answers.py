"""Answers whose end waits for the books."""

from __future__ import annotations

import asyncio
import logging
import time
from asyncio import Future
from collections import deque
from collections.abc import Callable

from vfastml.utils.rare_warning import RareWarning

_log = logging.getLogger(__name__)


class HeldAnswers:
    """One future for each entry that is not in the books yet, in the order in which they get there. For the event
    loop's thread.

    When the oldest has waited for `patience_s` seconds, all are let go, and none is held any more until something has
    been written again: what is wrong with the books is not the clients' fault.
    """

    def __init__(self, patience_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._patience_s = patience_s
        self._clock = clock
        self._held: deque[tuple[float, Future[None]]] = deque()
        self._timer: asyncio.TimerHandle | None = None
        self._is_behind = False
        self._let_go = RareWarning(_log)

    def __len__(self) -> int:
        """Entries that are not written, those of answers that were let go too."""
        return len(self._held)

    def hold(self) -> Future[None]:
        """For the entry that is now the last to be written."""
        loop = asyncio.get_running_loop()
        future: Future[None] = loop.create_future()
        self._held.append((self._clock(), future))
        if self._is_behind:
            future.set_result(None)
        elif self._timer is None:
            self._timer = loop.call_later(self._patience_s, self._look)
        return future

    def release(self, count: int) -> None:
        """The oldest `count` are written."""
        self._is_behind = False
        for _ in range(count):
            _let_go(self._held.popleft()[1])

    def close(self) -> None:
        """Hold nothing any more."""
        if self._timer is not None:
            self._timer.cancel()
        for _, future in self._held:
            _let_go(future)

    def _look(self) -> None:
        self._timer = None
        if not self._held:
            return
        left_s = self._held[0][0] + self._patience_s - self._clock()
        if left_s > 0:
            self._timer = asyncio.get_running_loop().call_later(left_s, self._look)
            return
        self._is_behind = True
        self._let_go.warn("The ledger is behind: answers do not wait for it until it is written again.")
        for _, future in self._held:
            _let_go(future)


def _let_go(future: Future[None]) -> None:
    if not future.done():
        future.set_result(None)
