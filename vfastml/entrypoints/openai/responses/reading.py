"""How a response grows that is not streamed to a client of its own."""

from __future__ import annotations

from collections.abc import Callable

from vfastml.engine.dispatch_replies import Timings, Usage
from vfastml.engine.dispatch_task import DispatchTask
from vfastml.entrypoints.openai.responses.growing_response import GrowingResponse
from vfastml.entrypoints.openai.responses.output_items import Event

Tell = Callable[[list[Event]], None]


def tell_nobody(_: list[Event]) -> None:
    """Where only the whole response is wanted."""


async def read(task: DispatchTask, growing: GrowingResponse, tell: Tell = tell_nobody) -> None:
    """Let it grow by all that comes of the task. Raises the task's VFastMLError; cancelled, it cancels the task."""
    async for delta in task:
        _begin(growing, tell)
        tell(growing.add(delta))
    _begin(growing, tell)
    growing.note_timings(task.timings or Timings())
    tell(growing.finish(task.usage or Usage()))


def _begin(growing: GrowingResponse, tell: Tell) -> None:
    if growing.status == "queued":
        tell(growing.begin())
