"""Scripts for the fake engine."""

from __future__ import annotations

import msgspec

from tests.entrypoints.fake_dispatch_engine import Script
from vfastml.engine.dispatch_replies import Accepted, Delta, Finished, Usage
from vfastml.engine.dispatch_task import DispatchTask

USAGE = Usage(5, 2, 2)


def saying(*deltas: Delta, usage: Usage = USAGE) -> Script:
    """An answer of these deltas."""

    async def script(task: DispatchTask) -> None:
        task.add_accepted(Accepted(task.request_id, usage.prompt_tokens))
        for delta in deltas:
            task.add_delta(msgspec.structs.replace(delta, request_id=task.request_id))
        task.finish(Finished(task.request_id, usage))

    return script
