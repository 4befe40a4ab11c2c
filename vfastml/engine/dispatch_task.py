"""One dispatched request as its caller sees it: what has come so far, what it came to, and how to stop it."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Any

from vfastml.engine.dispatch_replies import (
    Accepted,
    Delta,
    Detokenized,
    Failed,
    Finished,
    Output,
    Terminal,
    Timings,
    Tokenized,
    Usage,
)
from vfastml.engine.dispatch_requests import DetokenizeReq, OneShotReq, TextGenerationReq, TokenizeReq, WorkReq
from vfastml.errors import InternalServerError, VFastMLError, from_kind

_ANSWER_TO: dict[type[WorkReq], type[Terminal]] = {
    TextGenerationReq: Finished,
    TokenizeReq: Tokenized,
    DetokenizeReq: Detokenized,
    OneShotReq: Output,
}


@dataclass(slots=True)
class TextChoice:
    """One of the n texts that a request asked for."""

    index: int
    text: str
    token_ids: list[int] | None
    """Only with `return_token_ids`."""
    finish_reason: str | None
    stop_reason: str | None


@dataclass(slots=True)
class TextGenerationResult:
    """A whole answer, choices in order of their index."""

    choices: list[TextChoice]
    usage: Usage
    timings: Timings
    prompt_token_ids: list[int] | None


@dataclass(slots=True)
class DispatchRequestResult:
    """What a request came to: `result`, or `error` when it failed.

    `result` is a TextGenerationResult, a Tokenized, a Detokenized, or what a one-shot server's `forward` returned.
    """

    request: WorkReq
    model: str | None
    """The served id of the model that answered; None when the request reached no server."""
    result: Any = None
    error: VFastMLError | None = None

    def succeeded(self) -> bool:
        return self.error is None


class DispatchTask:
    """A request under way. Take its answer whole (`get_result`) or as it comes (`async for delta in task`), not both:
    each delta is handed out once.

    Stopping to wait is a cancel: of `get_result`, and of the iterator when it is closed, dropped or cancelled.
    `add_...`, `finish` and `fail` are for the engine that made the task; all is for the event loop's thread.
    """

    def __init__(self, request: WorkReq, on_cancel: Callable[[DispatchTask], None]) -> None:
        if type(request) not in _ANSWER_TO:
            raise TypeError(f"a {type(request).__name__} cannot be dispatched")
        self.request = request
        self.request_id = request.request_id
        self.model: str | None = None
        """The served id of the model, from the moment that a server was picked."""
        self.usage: Usage | None = None
        self.timings: Timings | None = None
        self._on_cancel = on_cancel
        self._accepted: Accepted | None = None
        self._deltas: deque[Delta] = deque()
        self._answer: Terminal | None = None
        self._error: VFastMLError | None = None
        self._progressed = asyncio.Event()
        self._accepted_or_ended = asyncio.Event()
        self._ended = asyncio.Event()

    async def accepted(self) -> Accepted:
        """Wait until a server has validated and queued the request. Raises its VFastMLError if it failed first."""
        await self._accepted_or_ended.wait()
        if self._accepted is not None:
            return self._accepted
        raise self._error or InternalServerError("The model server ended the request without accepting it.")

    async def get_result(self) -> DispatchRequestResult:
        """Wait for the end. Raises none of our errors: they are in the result. Cancelling this cancels the request."""
        try:
            await self._ended.wait()
        except asyncio.CancelledError:
            self.cancel()
            raise
        if self._error is not None:
            return DispatchRequestResult(self.request, self.model, error=self._error)
        return DispatchRequestResult(self.request, self.model, result=self._result())

    def __aiter__(self) -> DeltaStream:
        return DeltaStream(self)

    def cancel(self) -> None:
        """Stop the request, here and in the model server; without effect once it has ended."""
        self._on_cancel(self)

    def ended(self) -> bool:
        """Whether the terminal has come: nothing changes any more."""
        return self._ended.is_set()

    async def next_delta(self) -> Delta | None:
        """The next delta; None at the end. Raises the VFastMLError of a request that failed, after its last delta."""
        while not self._deltas and not self.ended():
            self._progressed.clear()
            await self._progressed.wait()
        if self._deltas:
            return self._deltas.popleft()
        if self._error is not None:
            raise self._error
        return None

    def add_accepted(self, accepted: Accepted) -> None:
        self._accepted = accepted
        self._accepted_or_ended.set()

    def add_delta(self, delta: Delta) -> None:
        self._deltas.append(delta)
        self._progressed.set()

    def finish(self, answer: Terminal) -> None:
        """The terminal, as the server sent it."""
        if isinstance(answer, Failed):
            self.fail(_error_of(answer))
        elif not isinstance(answer, _ANSWER_TO[type(self.request)]):
            self.fail(InternalServerError("The model server gave an answer of the wrong kind."))
        else:
            self._answer = answer
            self._end()

    def fail(self, error: VFastMLError) -> None:
        """The terminal, as the gateway decided it."""
        self._error = error
        self._end()

    def _end(self) -> None:
        if isinstance(self._answer, Finished):
            self.usage, self.timings = self._answer.usage, self._answer.timings
        self._ended.set()
        self._accepted_or_ended.set()
        self._progressed.set()

    def _result(self) -> Any:
        if isinstance(self._answer, Output):
            return self._answer.output
        if not isinstance(self._answer, Finished):
            return self._answer
        return TextGenerationResult(
            choices=_choices(self._deltas),
            usage=self._answer.usage,
            timings=self._answer.timings,
            prompt_token_ids=self._accepted.prompt_token_ids if self._accepted else None,
        )


class DeltaStream(AsyncIterator[Delta]):
    """The deltas of one task until its terminal. Closed (`aclose`), dropped or cancelled before that, it cancels the
    request: also when nothing was ever read from it, which a generator's `finally` would miss."""

    def __init__(self, task: DispatchTask) -> None:
        self._task = task
        self._loop = asyncio.get_running_loop()

    async def __anext__(self) -> Delta:
        try:
            delta = await self._task.next_delta()
        except asyncio.CancelledError:
            self._task.cancel()
            raise
        if delta is None:
            raise StopAsyncIteration
        return delta

    async def aclose(self) -> None:
        self._task.cancel()

    def __del__(self) -> None:
        # The garbage collector may run in any thread, and after the loop's end.
        if not self._task.ended() and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._task.cancel)


def _choices(deltas: deque[Delta]) -> list[TextChoice]:
    by_index: dict[int, list[Delta]] = {}
    for delta in deltas:
        by_index.setdefault(delta.index, []).append(delta)
    return [_choice(index, by_index[index]) for index in sorted(by_index)]


def _choice(index: int, deltas: list[Delta]) -> TextChoice:
    with_ids = any(delta.token_ids is not None for delta in deltas)
    return TextChoice(
        index=index,
        text="".join(delta.text for delta in deltas),
        token_ids=[token for delta in deltas for token in delta.token_ids or ()] if with_ids else None,
        finish_reason=deltas[-1].finish_reason,
        stop_reason=deltas[-1].stop_reason,
    )


def _error_of(failed: Failed) -> VFastMLError:
    return from_kind(
        failed.kind, failed.message, param=failed.param, code=failed.code, retry_after_s=failed.retry_after_s
    )
