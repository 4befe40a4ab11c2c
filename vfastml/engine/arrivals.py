"""What comes for the tasks of one response, as it comes."""

from __future__ import annotations

from collections.abc import Sequence

from vfastml.engine.dispatch_replies import Delta
from vfastml.engine.dispatch_task import DispatchTask
from vfastml.engine.progress import Progress
from vfastml.errors import VFastMLError


class Arrivals:
    """One reader for all of the tasks: however many deltas a step has for them, it is woken once."""

    def __init__(self, tasks: Sequence[DispatchTask]) -> None:
        self._tasks = tasks
        self._progress = Progress()
        self._failure: VFastMLError | None = None
        """Of a task whose last delta has been taken."""
        for task in tasks:
            task.progress = self._progress

    async def next(self) -> list[tuple[int, Delta]] | None:
        """Waits until something has come: all deltas since the last call, each with the position of its task, in order
        within a task; there may be none after `wake`. None when all tasks have ended. Raises the VFastMLError of one
        that has failed, after its last delta, whatever else has come since."""
        if self._failure is not None:
            raise self._failure
        if self._are_over():
            return None
        await self._progress.wait()
        self._failure = next((task.error for task in self._tasks if task.error is not None), None)
        return [(position, delta) for position, task in enumerate(self._tasks) for delta in task.take_deltas()]

    def wake(self) -> None:
        """Lets `next` return even if nothing has come."""
        self._progress.note()

    def _are_over(self) -> bool:
        return not self._progress.has_come and all(task.ended() for task in self._tasks)
