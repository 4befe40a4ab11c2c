"""POST /v1/responses, and what can be done with a response that is kept."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterator

from starlette.requests import Request
from starlette.responses import Response

from vfastml.engine.dispatch_engine import DispatchEngine
from vfastml.engine.dispatch_replies import Timings, Usage
from vfastml.engine.dispatch_task import DispatchTask
from vfastml.engine.tenant import TENANT
from vfastml.entrypoints.gateway_config import GatewayConfig
from vfastml.entrypoints.http_errors import ApiJSONResponse
from vfastml.entrypoints.keys.key_limits import KeyLimits
from vfastml.entrypoints.openai.responses.background import BackgroundResponses, RunningResponse
from vfastml.entrypoints.openai.responses.event_log import EventLog
from vfastml.entrypoints.openai.responses.growing_response import GrowingResponse
from vfastml.entrypoints.openai.responses.input_item_list import item_page
from vfastml.entrypoints.openai.responses.kept_items import items_of
from vfastml.entrypoints.openai.responses.log_stream import LogStream, log_stream
from vfastml.entrypoints.openai.responses.query_fields import one_of
from vfastml.entrypoints.openai.responses.reading import read
from vfastml.entrypoints.openai.responses.response_events import ResponseEvents
from vfastml.entrypoints.openai.responses.response_store import ResponseStore, StoredResponse
from vfastml.entrypoints.openai.responses.responses_request import ResponsesRequest
from vfastml.entrypoints.openai.responses.turn import Turn
from vfastml.entrypoints.routes import Route
from vfastml.entrypoints.streaming import EventStream
from vfastml.entrypoints.timings import SERVER_TIMING, TimedAnswer
from vfastml.entrypoints.validation import parse_body
from vfastml.errors import InvalidRequestError, NotFoundError, VFastMLError


def responses_routes(
    engine: DispatchEngine, background: BackgroundResponses, config: GatewayConfig, limits: KeyLimits
) -> list[Route]:
    """The built-in routes. A key has as many responses in the background as it may have requests open."""
    api = _Endpoints(engine, background, config, limits)
    one = "/v1/responses/{id}"
    return [
        Route("POST", "/v1/responses", api.create, "Answer an input", ResponsesRequest),
        Route("GET", one, api.retrieve, "Fetch a response"),
        Route("DELETE", one, api.delete, "Forget a response"),
        Route("POST", f"{one}/cancel", api.cancel, "Stop a response in the background"),
        Route("GET", f"{one}/input_items", api.input_items, "List what a response was given"),
    ]


class _Endpoints:
    def __init__(
        self, engine: DispatchEngine, background: BackgroundResponses, config: GatewayConfig, limits: KeyLimits
    ) -> None:
        self._engine = engine
        self._background = background
        self._limits = limits
        self._max_body_bytes = config.max_body_bytes
        self._keep_alive_s = config.keep_alive_s
        self._store = ResponseStore()

    async def create(self, http: Request) -> Response:
        body = await http.body()
        request = parse_body(body, ResponsesRequest)
        turn = Turn.of(request, len(body), self._store, self._max_body_bytes)
        self._check_room(turn)
        with _errors_named_by(request):
            task = self._engine.dispatch(turn.work())
            with _cancelled_on_error(task):
                await task.accepted()
                return await self._answer(turn, task)

    async def _answer(self, turn: Turn, task: DispatchTask) -> Response:
        self._check_room(turn)  # others have come since
        growing = turn.begun(task.model)
        if turn.request.background:
            return self._answer_in_background(turn, growing, task)
        if turn.request.stream:
            keep = functools.partial(turn.keep, growing, self._store)
            return EventStream([task], ResponseEvents(growing, keep), self._keep_alive_s)
        await read(task, growing)
        turn.keep(growing, self._store)
        took = TimedAnswer(task.timings or Timings(), task.usage or Usage(), num_choices=1)
        return ApiJSONResponse(growing.body(), headers={SERVER_TIMING: took.header()})

    def _answer_in_background(self, turn: Turn, growing: GrowingResponse, task: DispatchTask) -> Response:
        log = EventLog() if turn.request.stream else None
        running = RunningResponse(growing, task, turn, log)
        self._background.add(turn.owner, running, functools.partial(turn.keep, growing, self._store, log))
        return _as_json(running.body) if log is None else LogStream(log, 0, self._keep_alive_s)

    async def retrieve(self, http: Request) -> Response:
        found = self._running(http) or self._stored(http)
        if one_of(http.query_params, "stream", ("false", "true")) == "true":
            return log_stream(found.log, http.query_params, self._keep_alive_s)
        return _as_json(found.body)

    async def delete(self, http: Request) -> Response:
        response_id = http.path_params["id"]
        running = self._running(http)
        if running is not None:
            await running.forget()
        elif not self._store.remove(TENANT.get(), response_id):
            raise _not_found()
        return ApiJSONResponse({"id": response_id, "object": "response", "deleted": True})

    async def cancel(self, http: Request) -> Response:
        running = self._running(http)
        if running is not None:
            await running.stop()
            return _as_json(running.body)
        stored = self._stored(http)
        if not stored.in_background:
            raise InvalidRequestError("Only a response that was created with 'background' can be cancelled.")
        return _as_json(stored.body)

    async def input_items(self, http: Request) -> Response:
        found = self._running(http) or self._stored(http)
        return ApiJSONResponse(item_page(items_of(found.context), http.query_params))

    def _check_room(self, turn: Turn) -> None:
        if turn.request.background:
            self._background.check_room(turn, 0 if turn.owner is None else self._limits.max_open(turn.owner))

    def _running(self, http: Request) -> RunningResponse | None:
        return self._background.get(TENANT.get(), http.path_params["id"])

    def _stored(self, http: Request) -> StoredResponse:
        found = self._store.get(TENANT.get(), http.path_params["id"])
        if found is None:
            raise _not_found()
        return found


def _as_json(body: bytes) -> Response:
    return Response(body, media_type="application/json")


def _not_found() -> NotFoundError:
    return NotFoundError("There is no response of that id.")


@contextlib.contextmanager
def _cancelled_on_error(task: DispatchTask) -> Iterator[None]:
    try:
        yield
    except BaseException:
        task.cancel()
        raise


@contextlib.contextmanager
def _errors_named_by(request: ResponsesRequest) -> Iterator[None]:
    try:
        yield
    except VFastMLError as error:
        error.param = request.name_of(error.param)
        raise
