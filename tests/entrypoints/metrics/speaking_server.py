"""A model server without a model, as its own process: it says the words of the prompt, a token each, and tells of its
load. `python -m tests.entrypoints.metrics.speaking_server` says where it listens. The first word of a prompt may ask
for something else: `broken`, `full`, or `silent`."""

from __future__ import annotations

import asyncio

from tests.engine.fake_server import FakeServer
from vfastml.engine.dispatch_replies import Delta, Failed, Finished, Load, Status, StepReply, Timings, Usage
from vfastml.engine.dispatch_requests import TextGenerationReq, WorkReq
from vfastml.errors import InternalServerError, RateLimitError

LOAD = Load(
    running=3,
    waiting=2,
    free_blocks=30,
    total_blocks=40,
    open_requests=5,
    preemptions=7,
    chunked_prefills=1,
    prefix_hit_tokens=20,
    steps=900,
    prefix_query_tokens=50,
    prompt_tokens=600,
    generated_tokens=700,
)
TIMINGS = Timings(queued_s=0.5, first_token_s=2.0, total_s=4.0)


def speak(server: FakeServer, request: WorkReq) -> None:
    assert isinstance(request, TextGenerationReq)
    words = (request.prompt or "").split()
    if words[0] == "full":
        server.reply(Failed.of(request.request_id, RateLimitError(code="queue_full", retry_after_s=1.0)))
        return
    server.accept(request.request_id, len(words))
    if words[0] == "broken":
        server.reply(Failed.of(request.request_id, InternalServerError()))
    elif words[0] != "silent":
        _say(server, request.request_id, words)


def _say(server: FakeServer, request_id: str, words: list[str]) -> None:
    for word in words:
        server.reply(StepReply([Delta(request_id, 0, f"{word} ", num_tokens=1)]), to=request_id)
    usage = Usage(len(words), len(words), 1)
    last = [Delta(request_id, 0, finish_reason="stop")]
    server.reply(StepReply(last, [Finished(request_id, usage, TIMINGS)]), to=request_id)


async def _serve() -> None:
    server = FakeServer(answer=speak, models=("talker",))
    print(server.endpoint, flush=True)
    while True:
        await asyncio.sleep(0.1)
        server.broadcast(Status("ready", elapsed_s=12.0, load=LOAD))


if __name__ == "__main__":
    asyncio.run(_serve())
