"""How many requests wait for a model server, in all gateway processes."""

from __future__ import annotations

import asyncio
from asyncio import Future
from collections.abc import Callable

from prometheus_client import CollectorRegistry, Gauge

from vfastml.engine.request_observer import ObservedRequest, SilentObserver


class HeldRequests(SilentObserver):
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

    def on_dispatched(self, observed: ObservedRequest) -> None:
        asyncio.get_running_loop().call_soon(self._note)  # it is held after this, if it is

    def on_accepted(self, observed: ObservedRequest) -> None:
        self._note()

    def on_ended(self, observed: ObservedRequest) -> Future[None] | None:
        self._note()
        return None

    def _note(self) -> None:
        number = self._count()
        if number != self._noted:
            self._noted = number
            self._gauge.set(number)
