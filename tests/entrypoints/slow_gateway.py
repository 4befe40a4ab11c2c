"""A gateway as its own process, whose model says one word every tenth of a second, `max_tokens` times; or, with any
second argument, without a pause. The first one is the grace time in seconds, with `DELAY+` before it if that begins
later. Without a pause it also says on stdout how many deltas wait for their reader at the end."""

from __future__ import annotations

import asyncio
import sys

from tests.entrypoints.fake_dispatch_engine import FakeDispatchEngine
from vfastml.engine.dispatch_replies import Accepted, Delta, Finished, Usage
from vfastml.engine.dispatch_requests import TextGenerationReq
from vfastml.engine.dispatch_task import DispatchTask
from vfastml.entrypoints.api_server import Gateway
from vfastml.entrypoints.gateway_config import GatewayConfig


async def speak(task: DispatchTask, pause_s: float) -> None:
    assert isinstance(task.request, TextGenerationReq)
    words = task.request.sampling.max_tokens or 1
    task.add_accepted(Accepted(task.request_id, 1))
    for number in range(words):
        await asyncio.sleep(pause_s)
        task.add_delta(Delta(task.request_id, 0, f"{number} ", None, "length" if number == words - 1 else None))
    task.finish(Finished(task.request_id, Usage(1, words)))


async def speak_slowly(task: DispatchTask) -> None:
    await speak(task, 0.1)


async def speak_without_pause(task: DispatchTask) -> None:
    await speak(task, 0)
    print(f"waiting: {len(task._deltas)}", flush=True)


if __name__ == "__main__":
    delay_s, _, timeout_s = sys.argv[1].rpartition("+")
    config = GatewayConfig(drain_delay_s=float(delay_s or 0), drain_timeout_s=float(timeout_s))
    script = speak_without_pause if len(sys.argv) > 2 else speak_slowly
    Gateway(config, FakeDispatchEngine(script)).run(port=0)
