"""Requests as a ledger observes them, without a wire."""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from vfastml.engine.dispatch_replies import Accepted, Delta, Finished, Timings, Usage
from vfastml.engine.dispatch_requests import TextGenerationReq, WorkReq
from vfastml.engine.dispatch_task import DispatchTask
from vfastml.engine.tenant import Tenant
from vfastml.entrypoints.ledger.ledger import Ledger

_numbers = itertools.count()
ANN = Tenant("ann", b"a" * 32)
BOB = Tenant("bob", b"b" * 32)


@asynccontextmanager
async def running(path: Path, **options: Any) -> AsyncIterator[Ledger]:
    ledger = Ledger(str(path), **options)
    ledger.start()
    try:
        yield ledger
    finally:
        await ledger.close()


def dispatched(ledger: Ledger, request: WorkReq | None = None, tenant: Tenant | None = ANN) -> DispatchTask:
    """As an engine dispatches it: raises what an observer refuses it with."""
    request = request or TextGenerationReq(request_id=f"r{next(_numbers)}", prompt="x")
    task = DispatchTask(request, lambda _: None, ledger.observers, tenant)
    for observer in ledger.observers:
        observer.on_dispatched(task)
    task.model = "m"
    return task


def served(task: DispatchTask, prompt: int = 7, generated: int = 2) -> DispatchTask:
    """Accepted, and so many tokens said."""
    task.add_accepted(Accepted(task.request_id, prompt))
    for _ in range(generated):
        task.add_delta(Delta(task.request_id, text="w", num_tokens=1))
    return task


def finished(task: DispatchTask, prompt: int = 7, completion: int = 2) -> DispatchTask:
    task.finish(Finished(task.request_id, Usage(prompt, completion, 1, 1), Timings(0.25, 0.5, 1.0)))
    return task
