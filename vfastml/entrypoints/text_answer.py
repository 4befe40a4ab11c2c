"""From the requests of one HTTP call to its response: the part that all APIs for text share."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from starlette.responses import Response

from vfastml.engine.dispatch_engine import DispatchEngine
from vfastml.engine.dispatch_replies import Accepted
from vfastml.engine.dispatch_requests import TextGenerationReq
from vfastml.engine.dispatch_result import DispatchRequestResult
from vfastml.engine.dispatch_task import DispatchTask
from vfastml.entrypoints.http_errors import ApiJSONResponse
from vfastml.entrypoints.streaming import EventStream, Wording
from vfastml.entrypoints.timings import SERVER_TIMING, TimedAnswer, slowest


class AnswerForm(Protocol):
    """How an API puts the answer to one call, of which each prompt has its part."""

    def whole(self, results: Sequence[DispatchRequestResult]) -> dict[str, Any]:
        """The body for results that all succeeded."""

    def events(self, model: str | None, accepted: Sequence[Accepted]) -> Wording:
        """The wording of a stream, once the model server has accepted all requests."""


async def answer(
    engine: DispatchEngine,
    form: AnswerForm,
    requests: Sequence[TextGenerationReq],
    *,
    stream: bool,
    keep_alive_s: float,
) -> Response:
    """Dispatch them and answer all in one response. Raises the VFastMLError of the first that fails before anything is
    sent. Left early, by an error or by cancellation, it cancels them all."""
    tasks = [engine.dispatch(request) for request in requests]
    try:
        if stream:
            # The status is settled by then: nothing is refused after it was accepted.
            accepted = [await task.accepted() for task in tasks]
            return EventStream(tasks, form.events(tasks[0].model, accepted), keep_alive_s)
        results = [await succeeded(task) for task in tasks]
        took = slowest(TimedAnswer.of(result.result) for result in results)
        return ApiJSONResponse(form.whole(results), headers={SERVER_TIMING: took.header()})
    except BaseException:
        for task in tasks:
            task.cancel()
        raise


async def succeeded(task: DispatchTask) -> DispatchRequestResult:
    """Its result. Raises the VFastMLError that it failed with."""
    result = await task.get_result()
    if result.error is not None:
        raise result.error
    return result
