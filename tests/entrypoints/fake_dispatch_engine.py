"""A DispatchEngine without a wire: it remembers what reached it, and answers from a script that a test can replace."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from vfastml.engine.dispatch_replies import (
    Accepted,
    Delta,
    Detokenized,
    Finished,
    Limits,
    Load,
    Output,
    PlaceLogprobs,
    ServedModel,
    Tokenized,
    TokenLogprob,
    ToolCallPiece,
    Usage,
)
from vfastml.engine.dispatch_requests import DetokenizeReq, OneShotReq, TextGenerationReq, TokenizeReq, WorkReq
from vfastml.engine.dispatch_task import DispatchTask
from vfastml.engine.request_handles import handle_of, with_handles
from vfastml.engine.request_observer import RequestObserver
from vfastml.engine.server_table import ServerState, ServerView, Startup
from vfastml.engine.tenant import TENANT, Tenant, kept_apart
from vfastml.engine.wire import encode_request
from vfastml.errors import RequestCancelledError, VFastMLError

MODEL = ServedModel(
    "tiny", uri="builtin:tiny", aliases=["tiny-alias", "builtin:tiny"], max_model_len=512, created=1700000000
)
LIMITS = Limits(
    512, 8, 64, 40, 16, 1000, measured=True, tpot_ms=12.5, decode_tokens_per_s=640.0, prefill_tokens_per_s=1500.0
)

PLACE = PlaceLogprobs(TokenLogprob(7, b"Hello", -0.5), 2, [TokenLogprob(9, b"\xe2\x80", -0.25)])
"""What is said of each token where log probabilities are asked for."""
FIRST_PLACE = PlaceLogprobs(TokenLogprob(1, b"<s>", 0.0), 0)

Script = Callable[[DispatchTask], Awaitable[None]]


async def say_hello(task: DispatchTask) -> None:
    """The default answer: "Hello" and " world" for each choice, five prompt tokens of which two were cached."""
    request = task.request
    if isinstance(request, TextGenerationReq):
        called = request.tool_use is not None and request.tool_use.choice == "required"
        await (_call_first_tool(task, request) if called else _say_hello(task, request, request.n or 1))
    elif isinstance(request, TokenizeReq):
        task.finish(Tokenized(task.request_id, [1, 2, 3], 512, "text" if request.with_text else None))
    elif isinstance(request, DetokenizeReq):
        task.finish(Detokenized(task.request_id, "text"))
    elif isinstance(request, OneShotReq):
        task.finish(Output(task.request_id, {"score": 0.5}))


async def _say_hello(task: DispatchTask, request: TextGenerationReq, n: int) -> None:
    ids = [7, 8] if request.return_token_ids else None
    places = None if request.sampling.logprobs is None else [PLACE]
    of_prompt = None if request.sampling.prompt_logprobs is None else [FIRST_PLACE, PLACE]
    score = None if request.beams is None else -0.5
    task.add_accepted(Accepted(task.request_id, 5, [1, 2, 3, 4, 5] if ids else None, n))
    for index in range(n):
        task.add_delta(Delta(task.request_id, index, "Hello", ids, logprobs=places, prompt_logprobs=of_prompt))
        await asyncio.sleep(0)
    for index in range(n):
        task.add_delta(Delta(task.request_id, index, " world", ids, "stop", "END", logprobs=places, score=score))
    task.finish(Finished(task.request_id, Usage(5, 2 * n, 2)))


async def _call_first_tool(task: DispatchTask, request: TextGenerationReq) -> None:
    assert request.tool_use is not None
    name = request.tool_use.tools[0]["function"]["name"]
    task.add_accepted(Accepted(task.request_id, 5))
    task.add_delta(Delta(task.request_id, tool_calls=[ToolCallPiece(0, "call_1", name)]))
    await asyncio.sleep(0)
    for arguments in ('{"city": ', '"Paris"}'):
        task.add_delta(Delta(task.request_id, tool_calls=[ToolCallPiece(0, arguments=arguments)]))
    task.add_delta(Delta(task.request_id, finish_reason="tool_calls"))
    task.finish(Finished(task.request_id, Usage(5, 7, 2)))


async def choose_two(task: DispatchTask) -> None:
    """The answer of a server whose default is n = 2."""
    assert isinstance(task.request, TextGenerationReq)
    await _say_hello(task, task.request, task.request.n or 2)


def fail_with(error: VFastMLError, after: list[str] | None = None) -> Script:
    """A script that fails: before it is accepted, or after these pieces of text."""

    async def script(task: DispatchTask) -> None:
        if after is not None:
            task.add_accepted(Accepted(task.request_id, 5))
            for text in after:
                task.add_delta(Delta(task.request_id, 0, text))
        task.fail(error)

    return script


async def never_end(task: DispatchTask) -> None:
    """Accept, say one word, and go on for ever."""
    task.add_accepted(Accepted(task.request_id, 5))
    task.add_delta(Delta(task.request_id, 0, "word"))
    await asyncio.Event().wait()


class FakeDispatchEngine:
    """The same interface as DispatchEngine."""

    def __init__(self, script: Script = say_hello) -> None:
        self.script = script
        self.requests: list[WorkReq] = []
        self.cancelled: list[str] = []
        self.ready = True
        self.running = False
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._observers: list[RequestObserver] = []
        self._open: dict[str, DispatchTask] = {}

    def observe(self, *observers: RequestObserver) -> None:
        self._observers += observers

    async def start(self) -> None:
        self.running = True

    async def close(self) -> None:
        self.running = False
        for task in list(self._open.values()):
            self.cancel(task)

    def dispatch(self, request: WorkReq) -> DispatchTask:
        request = kept_apart(with_handles(request))
        task = DispatchTask(request, self.cancel, self._observers, TENANT.get())
        self.requests.append(request)
        try:
            for observer in self._observers:
                observer.on_dispatched(task)
            encode_request(request)
        except VFastMLError as error:
            task.fail(error)
            return task
        task.model = MODEL.id
        self._open[task.request_id] = task
        self._tasks[task.request_id] = asyncio.get_running_loop().create_task(self._play(task))
        return task

    def cancel(self, task: DispatchTask) -> None:
        if not task.ended():
            self.cancelled.append(task.request_id)
            self._tasks[task.request_id].cancel()
            self._open.pop(task.request_id, None)
            task.fail(RequestCancelledError())

    def end_requests_of(self, tenant: Tenant, error: VFastMLError) -> None:
        for task in [task for task in self._open.values() if task.tenant == tenant]:
            self._tasks[task.request_id].cancel()
            self._open.pop(task.request_id)
            task.fail(error)

    async def cancel_by_name(self, name: str) -> bool:
        handle = handle_of(name)
        found = [task for task in self._open.values() if handle in getattr(task.request, "handles", ())]
        for task in found:
            self.cancel(task)
        return bool(found)

    @property
    def open_requests(self) -> int:
        return len(self._open)

    @property
    def held_requests(self) -> int:
        return 0

    def models(self) -> list[ServedModel]:
        return [MODEL]

    def servers(self) -> list[ServerView]:
        load = Load(running=2, waiting=1, free_blocks=30, total_blocks=40, steps=9, prefix_hit_tokens=16)
        return [
            ServerView(
                f"tcp://127.0.0.1:{port}",
                ServerState.LIVE,
                "ready",
                None,
                12.5,
                0.0,
                0,
                load,
                LIMITS,
                (MODEL,),
                "cpu",
                "bfloat16",
                "hf",
                "1.2.3",
            )
            for port in (6500, 6501)
        ]

    def is_ready(self) -> bool:
        return self.ready

    async def wait_ready(self) -> None:
        if not self.ready:
            await asyncio.Event().wait()

    def startup(self) -> Startup:
        return Startup(self.ready, "ready" if self.ready else "weights", None if self.ready else 0.25, 3.5)

    async def _play(self, task: DispatchTask) -> None:
        await self.script(task)
        self._open.pop(task.request_id, None)
