"""A model server that answers at once, as a process: `python -m tests.entrypoints.ledger.quick_server`.

It says its port. Tokens of a prompt are its words; half of them were cached. It says `max_tokens` words.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress

import zmq

from tests.engine.fake_server import FakeServer
from vfastml.engine.dispatch_replies import Delta, Finished, StepReply, Timings, Usage
from vfastml.engine.dispatch_requests import TextGenerationReq, WorkReq


def answer(server: FakeServer, request: WorkReq) -> None:
    with suppress(zmq.ZMQError):  # its gateway has been killed meanwhile
        say_words(server, request)


def say_words(server: FakeServer, request: WorkReq) -> None:
    assert isinstance(request, TextGenerationReq)
    request_id, prompt, count = request.request_id, len((request.prompt or "").split()), request.sampling.max_tokens
    assert count is not None
    server.accept(request_id, prompt)
    for _ in range(count):
        server.reply(StepReply([Delta(request_id, 0, "word ", num_tokens=1)]), to=request_id)
    ended = Finished(request_id, Usage(prompt, count, prompt // 2), Timings(0.001, 0.002, 0.003))
    server.reply(StepReply([Delta(request_id, 0, finish_reason="length")], [ended]), to=request_id)


async def main() -> None:
    server = FakeServer(answer=answer)
    print(server.port, flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main())
