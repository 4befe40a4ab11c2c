"""Requests that come when they come, whether or not earlier ones have been answered."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Sequence
from itertools import accumulate


def poisson_arrivals(rate: float, count: int, rng: random.Random) -> list[float]:
    """When each is due, in seconds from the start: `rate` of them in a second, each independent of the others."""
    return list(accumulate(rng.expovariate(rate) for _ in range(count)))


async def open_loop(due_s: Sequence[float], concurrency: int, work: Callable[[int], Awaitable[None]]) -> None:
    """Begins `work(number)` when it is due, or later: when fewer than `concurrency` are at work."""
    places = asyncio.Semaphore(concurrency)
    loop = asyncio.get_running_loop()
    began = loop.time()

    async def one(number: int) -> None:
        try:
            await work(number)
        finally:
            places.release()

    async with asyncio.TaskGroup() as group:
        for number, due in enumerate(due_s):
            await asyncio.sleep(began + due - loop.time())
            await places.acquire()
            group.create_task(one(number))
