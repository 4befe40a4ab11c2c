"""The thread that writes the books: all that waits, in one transaction, while the next ones gather."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from queue import Empty, SimpleQueue
from typing import Protocol

from vfastml.entrypoints.ledger.entry import Entry
from vfastml.entrypoints.ledger.errors import LedgerError
from vfastml.utils.rare_warning import RareWarning

_log = logging.getLogger(__name__)

_MOST_AT_ONCE = 1000
"""Entries of one transaction: longer ones would keep other processes waiting."""
_RETRY_S = 0.5
_REST_S = 0.005
"""After a transaction of several entries: one costs much the same at any size, and with many requests a second most of
that is saved. What comes alone does not wait."""


class WritesEntries(Protocol):
    """What is needed of Books."""

    def write(self, entries: Sequence[Entry]) -> None:
        """See Books."""


@dataclass(slots=True)
class Chore:
    """Something else that the thread does, now and then. `do` says whether there is more to do at once; it may raise
    LedgerError."""

    every_s: float
    do: Callable[[], bool]
    due_s: float = 0.0
    """On time.monotonic's clock."""


class LedgerWriter:
    """Writes entries in the order of their coming. `on_written` is told, in this thread, what is in the books now.
    What cannot be written is tried again until it can be."""

    def __init__(
        self, books: WritesEntries, on_written: Callable[[Sequence[Entry]], None], chores: Sequence[Chore] = ()
    ) -> None:
        self._books = books
        self._on_written = on_written
        self._chores = chores
        self._queue: SimpleQueue[Entry | None] = SimpleQueue()
        self._group: list[Entry] = []
        """Taken from the queue, and not written."""
        self._next_s = 0.0
        """When the next transaction may begin."""
        self._is_closing = False
        self._failure = RareWarning(_log)
        # It does not keep a process alive: a disk may never answer.
        self._thread = threading.Thread(target=self._run, name="ledger", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def put(self, entry: Entry) -> None:
        """To be written soon. Never waits."""
        self._queue.put(entry)

    def close(self, patience_s: float) -> bool:
        """Wait until all is written, so long at most. Whether it is."""
        self._queue.put(None)
        self._thread.join(patience_s)
        return not self._thread.is_alive()

    def _run(self) -> None:
        while not (self._is_closing and not self._group):
            try:
                self._gather()
                self._write_group()
                self._do_chores()
            except Exception:  # the books go on whatever happens: what was written already is not written twice
                _log.exception("The ledger's thread has met what it does not know, and goes on.")
                self._next_s = time.monotonic() + _RETRY_S

    def _gather(self) -> None:
        """Wait for something to do."""
        time.sleep(max(0.0, self._next_s - time.monotonic()))
        wait_s = 0.0 if self._group or self._is_closing else self._until_chore_s()
        with suppress(Empty):
            self._take(self._queue.get(timeout=wait_s))
            while len(self._group) < _MOST_AT_ONCE:
                self._take(self._queue.get_nowait())

    def _take(self, entry: Entry | None) -> None:
        if entry is None:
            self._is_closing = True
        else:
            self._group.append(entry)

    def _write_group(self) -> None:
        if not self._group:
            return
        try:
            self._books.write(self._group)
        except LedgerError as error:
            self._next_s = time.monotonic() + _RETRY_S
            self._warn(error)
            return
        self._next_s = time.monotonic() + (_REST_S if len(self._group) > 1 else 0.0)
        written, self._group = self._group, []
        self._on_written(written)

    def _do_chores(self) -> None:
        for chore in self._chores:
            if chore.due_s <= time.monotonic() and not self._is_closing:
                self._do(chore)

    def _do(self, chore: Chore) -> None:
        try:
            is_more = chore.do()
        except LedgerError as error:
            self._warn(error)
            is_more = False
        chore.due_s = time.monotonic() + (0.0 if is_more else chore.every_s)

    def _warn(self, error: LedgerError) -> None:
        self._failure.warn("The ledger cannot be written: %s. It is tried again.", error)

    def _until_chore_s(self) -> float | None:
        """None: there is none."""
        due_s = min((chore.due_s for chore in self._chores), default=None)
        return None if due_s is None else max(0.0, due_s - time.monotonic())
