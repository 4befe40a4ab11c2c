"""How many requests wait for a model server, in all gateway processes."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from prometheus_client import CollectorRegistry, Gauge


class HeldRequests:
    """`count` says how many there are in this process, and is asked whenever that may have changed: no other process
    can ask it."""

    def __init__(self, registry: CollectorRegistry | None, count: Callable[[], int]) -> None:
        self._count = count
        self._gauge = Gauge(
            "vfastml:held_requests",
            "Requests that wait for a model server which is loading.",
            multiprocess_mode="livesum",
            registry=registry,
        )
        self._noted = 0

    def note_soon(self) -> None:
        """Once what is under way has been done."""
        asyncio.get_running_loop().call_soon(self.note)

    def note(self) -> None:
        """The number may be another one now."""
        number = self._count()
        if number != self._noted:
            self._noted = number
            self._gauge.set(number)
