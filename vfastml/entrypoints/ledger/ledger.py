"""The usage ledger of a gateway process: what has ended is booked before its client has seen the end."""

from __future__ import annotations

import asyncio
import logging
import time
from asyncio import AbstractEventLoop, Future
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import timedelta

from vfastml.engine.request_observer import ObservedRequest, RequestObserver, SilentObserver
from vfastml.entrypoints.ledger.books import PRUNED_AT_ONCE, Books, utc_now
from vfastml.entrypoints.ledger.entry import Entry, entry_of
from vfastml.entrypoints.ledger.held_answers import HeldAnswers
from vfastml.entrypoints.ledger.ledger_writer import Chore, LedgerWriter
from vfastml.entrypoints.ledger.quota_guard import QuotaGuard, QuotaOf, tokens_by_key
from vfastml.entrypoints.ledger.usage import KeyUsage, usage_of_keys
from vfastml.utils.rare_warning import RareWarning

_log = logging.getLogger(__name__)

PATIENCE_S = 5.0
"""How long an answer waits for the books, and a process that ends."""
MOST_KEPT = 100_000
"""Entries in memory, while they cannot be written: about 64 MiB."""
_READ_EVERY_S = 1.0
_PRUNE_EVERY_S = 3600.0


class Ledger(SilentObserver):
    """Books each request of the gateway in the file at `path`, which other processes may write too; rows are deleted
    after `keep_days` days, totals never. `quota_of` is asked for callers' quotas; without it there are none.

    Its `observers` are for a DispatchEngine; `start` and `close` are called in that one's event loop. Raises
    LedgerError when the file cannot be had.
    """

    def __init__(
        self,
        path: str,
        *,
        keep_days: int = 90,
        quota_of: QuotaOf | None = None,
        patience_s: float = PATIENCE_S,
        most_kept: int = MOST_KEPT,
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        self._path = path
        self._keep = timedelta(days=keep_days)
        self._patience_s = patience_s
        self._most_kept = most_kept
        self._wall_clock = wall_clock
        self._books = Books(path)
        self._held = HeldAnswers(patience_s)
        self._guard = QuotaGuard(quota_of, self._books.tokens_used(utc_now())) if quota_of is not None else None
        self._written: Counter[str] = Counter()
        """Tokens by key id since the books were last read; for the writer's thread."""
        self._writer = LedgerWriter(self._books, self._on_written, self._chores())
        self._loop: AbstractEventLoop | None = None
        self._lost = RareWarning(_log)

    @property
    def observers(self) -> tuple[RequestObserver, ...]:
        """To be told of each request, in this order."""
        return (self,) if self._guard is None else (self._guard, self)

    def start(self) -> None:
        """Begin to write."""
        self._loop = asyncio.get_running_loop()
        self._writer.start()

    async def close(self) -> None:
        """Write all that has ended. Gives up after the same time as an answer does."""
        if self._loop is None:
            return
        is_written = await asyncio.to_thread(self._writer.close, self._patience_s)
        await asyncio.sleep(0)  # what was written last is told to this loop
        if is_written:
            self._books.close()
        else:
            _log.error("The ledger could not be written: %d requests are missing in it.", len(self._held))
        self._held.close()

    def on_ended(self, observed: ObservedRequest) -> Future[None] | None:
        """The future is done once the request is in the books."""
        entry = entry_of(observed, self._wall_clock())
        if entry is None:
            return None
        if len(self._held) >= self._most_kept:
            self._lost.warn("The ledger cannot be written and memory for it is full: a request is missing in it.")
            return None
        if self._guard is not None:
            self._guard.on_entry(entry)
        self._writer.put(entry)
        return self._held.hold()

    async def usage_of_keys(self) -> list[KeyUsage]:
        """What each key has used by now, as booked. Raises LedgerError."""
        return await asyncio.to_thread(usage_of_keys, self._path, utc_now())

    # The writer's thread.

    def _chores(self) -> Sequence[Chore]:
        prune = Chore(_PRUNE_EVERY_S, self._prune)
        return (prune,) if self._guard is None else (Chore(_READ_EVERY_S, self._read), prune)

    def _on_written(self, entries: Sequence[Entry]) -> None:
        if self._guard is not None:
            self._written += tokens_by_key(entries)
        self._tell(self._held.release, len(entries))

    def _read(self) -> bool:
        assert self._guard is not None
        used = self._books.tokens_used(utc_now())
        written, self._written = self._written, Counter()
        self._tell(self._guard.on_read, used, written)
        return False

    def _prune(self) -> bool:
        return self._books.prune(utc_now() - self._keep) == PRUNED_AT_ONCE

    def _tell(self, callback: Callable[..., None], *args: object) -> None:
        assert self._loop is not None
        with suppress(RuntimeError):  # the loop has ended: nobody waits any more
            self._loop.call_soon_threadsafe(callback, *args)
