"""One dispatched request as its caller sees it: what has come so far, what it came to, and how to stop it."""

from __future__ import annotations

import asyncio
import time
from asyncio import Future
from collections.abc import AsyncIterator, Callable, Sequence

from vfastml.engine.dispatch_replies import Accepted, Delta, Finished, Terminal, Timings, Usage
from vfastml.engine.dispatch_requests import WorkReq
from vfastml.engine.dispatch_result import ANSWER_TO, DispatchRequestResult, error_in, result_of
from vfastml.engine.merged_deltas import merged_by_choice
from vfastml.engine.progress import Progress
from vfastml.engine.request_observer import RequestObserver, undisturbed
from vfastml.engine.tenant import Tenant
from vfastml.errors import InternalServerError, VFastMLError

_MANY_WAITING = 32
"""Deltas that nobody has taken. With more they are merged: a reader that is stuck costs its text, and little more."""


class DispatchTask:
    """A request under way. Take its answer whole (`get_result`) or as it comes (`async for delta in task`), not both:
    each delta is handed out once. Whoever takes them much more slowly than they come gets fewer and longer ones.

    Stopping to wait is a cancel: of `get_result`, and of the iterator when it is closed, dropped or cancelled.
    `add_...`, `finish` and `fail` are for the engine that made the task; all is for the event loop's thread.
    """

    def __init__(
        self,
        request: WorkReq,
        on_cancel: Callable[[DispatchTask], None],
        observers: Sequence[RequestObserver] = (),
        tenant: Tenant | None = None,
    ) -> None:
        if type(request) not in ANSWER_TO:
            raise TypeError(f"a {type(request).__name__} cannot be dispatched")
        self.request: WorkReq = request
        self.model: str | None = None
        """The served id of the model, from the moment that a server was picked."""
        self.tenant = tenant
        self.endpoint: str | None = None
        """Of the model server that it was sent to last."""
        self.dispatched_s = time.monotonic()
        self.usage: Usage | None = None
        self.timings: Timings | None = None
        self.num_generated_tokens = 0
        """That have come so far, of all choices."""
        self._on_cancel = on_cancel
        self._observers = observers
        self._accepted: Accepted | None = None
        self._deltas: list[Delta] = []
        self._merge_beyond = _MANY_WAITING
        self._answer: Terminal | None = None
        self._error: VFastMLError | None = None
        self.progress = Progress()
        """Told when a delta or the end has come. The tasks of one response share one: see Arrivals."""
        self._accepted_or_ended = asyncio.Event()
        self._ended = asyncio.Event()
        self._num_waits = 0
        """Of those that have not noted the end yet."""

    @property
    def request_id(self) -> str:
        """Of the request."""
        return self.request.request_id

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
        if self._answer is not None:
            return result_of(self.request, self.model, self._accepted, self._deltas, self._answer)
        return DispatchRequestResult(self.request, self.model, error=self._error)

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
            await self.progress.wait()
        if self._deltas:
            return self._deltas.pop(0)
        if self._error is not None:
            raise self._error
        return None

    def take_deltas(self) -> list[Delta]:
        """All that have come and were not handed out, without waiting."""
        taken, self._deltas = self._deltas, []
        return taken

    @property
    def num_prompt_tokens(self) -> int:
        """0 until a server has accepted it."""
        return 0 if self._accepted is None else self._accepted.prompt_tokens

    @property
    def usage_so_far(self) -> Usage:
        """What it came to; of one that has not finished, what its client may have seen."""
        return self.usage or Usage(self.num_prompt_tokens, self.num_generated_tokens)

    @property
    def answer(self) -> Terminal | None:
        """The server's terminal, unless it is an error."""
        return self._answer

    @property
    def error(self) -> VFastMLError | None:
        """What it failed with, if it has."""
        return self._error

    def add_accepted(self, accepted: Accepted) -> None:
        self._accepted = accepted
        for observer in self._observers:
            undisturbed(observer.on_accepted, self)
        self._accepted_or_ended.set()

    def add_delta(self, delta: Delta) -> None:
        self.num_generated_tokens += delta.num_tokens
        for observer in self._observers:
            undisturbed(observer.on_delta, self, delta)
        if delta.only_counts:
            return
        self._deltas.append(delta)
        if len(self._deltas) > self._merge_beyond:
            self._deltas = merged_by_choice(self._deltas)
            self._merge_beyond = max(_MANY_WAITING, 2 * len(self._deltas))
        self.progress.note()

    def finish(self, answer: Terminal) -> None:
        """The terminal, as the server sent it."""
        error = error_in(self.request, answer)
        if error is not None:
            self.fail(error)
        else:
            self._answer = answer
            if isinstance(answer, Finished):
                self.usage, self.timings = answer.usage, answer.timings
            self._settle()

    def fail(self, error: VFastMLError) -> None:
        """The terminal, as the gateway decided it."""
        self._error = error
        self._settle()

    def _settle(self) -> None:
        """What it came to is settled; the end is shown once all that watch have noted it."""
        waits = [wait for observer in self._observers if (wait := undisturbed(observer.on_ended, self)) is not None]
        self._num_waits = len(waits)
        for wait in waits:
            wait.add_done_callback(self._on_noted)
        if not waits:
            self._end()

    def _on_noted(self, wait: Future[None]) -> None:
        if not wait.cancelled():
            wait.exception()  # has been looked at: whoever failed to note the request has said so
        self._num_waits -= 1
        if not self._num_waits:
            self._end()

    def _end(self) -> None:
        self._ended.set()
        self._accepted_or_ended.set()
        self.progress.note()


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
