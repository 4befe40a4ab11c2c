"""What a model server may tell of a beam search that lost its blocks once."""

from __future__ import annotations

import asyncio

from tests.engine.fake_server import FakeServer
from vfastml.engine.dispatch_replies import Delta, Failed, Finished, Mark, StepReply, Timings, Usage
from vfastml.engine.dispatch_requests import TextGenerationReq, WorkReq
from vfastml.errors import InternalServerError

TOOK_S = 0.4
TIMINGS = Timings(queued_s=0.05, first_token_s=0.2, total_s=TOOK_S, num_preemptions=1)
MARKS = [
    Mark("scheduled", 0.05),
    Mark("prefilled", 0.1, 0, 32),
    Mark("prefilled", 0.2, 0, 8),
    Mark("first_token", 0.2),
    Mark("forked", 0.22, 1),
    Mark("preempted", 0.25, 1, 41),
    Mark("resumed", 0.35, 1, 41),
]
USAGE = Usage(prompt_tokens=40, completion_tokens=3, cached_tokens=16, reasoning_tokens=1)
WORDS = "answer-canary"


def tell_all(server: FakeServer, request: WorkReq) -> None:
    """Answers as slowly as it says, with marks where they are asked for."""
    assert isinstance(request, TextGenerationReq)
    server.accept(request.request_id, 40)
    asyncio.get_running_loop().call_later(1.1 * TOOK_S, _finish, server, request)


def break_down(server: FakeServer, request: WorkReq) -> None:
    """Fails after the first word."""
    server.accept(request.request_id, 40)
    server.say(request.request_id, WORDS)
    server.reply(Failed.of(request.request_id, InternalServerError("words of the error")))


def _finish(server: FakeServer, request: TextGenerationReq) -> None:
    deltas = [Delta(request.request_id, index, WORDS, finish_reason="stop", num_tokens=1) for index in range(2)]
    finished = Finished(request.request_id, USAGE, TIMINGS, MARKS if request.is_traced else [])
    server.reply(StepReply(deltas, [finished]), to=request.request_id)
