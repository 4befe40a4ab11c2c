"""A fixed number of requests in flight: whoever gets an answer asks the next question."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

Task = TypeVar("Task")


async def closed_loop(tasks: Sequence[Task], concurrency: int, work: Callable[[Task], Awaitable[None]]) -> None:
    """Every task once, `concurrency` of them at a time, in order."""
    waiting = iter(tasks)

    async def worker() -> None:
        for task in waiting:
            await work(task)

    async with asyncio.TaskGroup() as group:
        for _ in range(min(concurrency, len(tasks))):
            group.create_task(worker())
