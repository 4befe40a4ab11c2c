"""From the requests of one HTTP call to its response: the part that chat and completions share."""

from __future__ import annotations

from collections.abc import Sequence

from starlette.responses import Response

from vfastml.engine.dispatch_engine import DispatchEngine
from vfastml.engine.dispatch_requests import TextGenerationReq
from vfastml.engine.dispatch_result import DispatchRequestResult
from vfastml.engine.dispatch_task import DispatchTask
from vfastml.entrypoints.http_errors import ApiJSONResponse
from vfastml.entrypoints.openai.replies import ReplyEvents, whole_body
from vfastml.entrypoints.openai.reply_styles import ReplyStyle
from vfastml.entrypoints.openai.text_request import TextRequest
from vfastml.entrypoints.streaming import EventStream


async def answer(
    engine: DispatchEngine,
    style: ReplyStyle,
    response_id: str,
    body: TextRequest,
    requests: Sequence[TextGenerationReq],
    keep_alive_s: float,
) -> Response:
    """Dispatch one request for each prompt and answer all in one response. Raises the VFastMLError of the first that
    fails before anything is sent. Left early, by an error or by cancellation, it cancels them all."""
    tasks = [engine.dispatch(request) for request in requests]
    try:
        if body.stream:
            return await _streamed(style, response_id, body, tasks, keep_alive_s)
        results = [await _succeeded(task) for task in tasks]
        return ApiJSONResponse(whole_body(style, response_id, results))
    except BaseException:
        for task in tasks:
            task.cancel()
        raise


async def _streamed(
    style: ReplyStyle, response_id: str, body: TextRequest, tasks: Sequence[DispatchTask], keep_alive_s: float
) -> Response:
    # The status is settled by now: nothing is refused after it was accepted.
    accepted = [await task.accepted() for task in tasks]
    events = ReplyEvents(
        style,
        response_id,
        tasks[0].model,
        accepted,
        choices_per_prompt=body.n or max(one.num_choices for one in accepted),
        with_usage=body.wants_usage_chunk(),
    )
    return EventStream(tasks, events, keep_alive_s)


async def _succeeded(task: DispatchTask) -> DispatchRequestResult:
    result = await task.get_result()
    if result.error is not None:
        raise result.error
    return result
