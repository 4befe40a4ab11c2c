"""What traces cost the event loop of a gateway, without HTTP and without a model: `python -m benchmarks.tracing`.
Prints microseconds of processor time a request of 64 deltas: for the span of its HTTP part, that of its dispatch, and
those of what the model server measured. What the exporter's thread does is not in it, and spans go to /dev/null."""

from __future__ import annotations

import argparse
import asyncio
import statistics
import time

from starlette.types import Message, Receive, Scope, Send

from vfastml.engine.dispatch_replies import Accepted, Delta, Finished, Mark, Timings, Usage
from vfastml.engine.dispatch_requests import TextGenerationReq
from vfastml.engine.dispatch_task import DispatchTask
from vfastml.engine.request_observer import RequestObserver
from vfastml.entrypoints.gateway_config import GatewayConfig
from vfastml.entrypoints.tracing.http_spans import TracingMiddleware
from vfastml.entrypoints.tracing.request_tracing import RequestTracing

_NUM_DELTAS = 64
_SCOPE: Scope = {
    "type": "http",
    "method": "POST",
    "path": "/v1/completions",
    "headers": [(f"x-header-{number}".encode(), b"value") for number in range(10)],
}
_MARKS = [
    Mark(name, 0.001 * number) for number, name in enumerate(["scheduled", "prefilled", "first_token", "finished"])
]


class _App:
    """Dispatches one text of 64 deltas for each request, and answers."""

    def __init__(self, observers: list[RequestObserver]) -> None:
        self._observers = observers

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        task = DispatchTask(TextGenerationReq(request_id="r", prompt="x"), lambda _: None, self._observers)
        for observer in self._observers:
            observer.on_dispatched(task)
        task.add_accepted(Accepted("r", 5))
        for _ in range(_NUM_DELTAS):
            task.add_delta(Delta("r", text="word", num_tokens=1))
        is_traced = isinstance(task.request, TextGenerationReq) and task.request.is_traced
        task.finish(Finished("r", Usage(5, 64), Timings(0.0, 0.001, 0.003), _MARKS if is_traced else []))
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b""})


async def _receive() -> Message:
    return {"type": "http.request"}


async def _send(_: Message) -> None:
    """Nobody listens."""


async def _measured(app: TracingMiddleware | _App, count: int) -> float:
    """Microseconds a request: the median of five rounds."""
    rounds = []
    for _ in range(5):
        began = time.thread_time()
        for _ in range(count):
            await app(dict(_SCOPE), _receive, _send)
        rounds.append((time.thread_time() - began) / count * 1e6)
        await asyncio.sleep(1)  # for the exporter to get done
    return statistics.median(rounds)


async def _main(count: int) -> None:
    without = await _measured(_App([]), count)
    print(f"no tracing    {without:7.1f} us")
    for share in (0.0, 0.01, 1.0):
        tracing = RequestTracing(GatewayConfig(trace_file="/dev/null", trace_sample=share))
        app = TracingMiddleware(_App([tracing.observer()]), tracing.tracer, share)
        took = await _measured(app, count)
        print(f"sample {share:<6g} {took:7.1f} us, {took - without:+.1f}")
        tracing.close()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=500, help="requests in a round")
    asyncio.run(_main(parser.parse_args().count))
