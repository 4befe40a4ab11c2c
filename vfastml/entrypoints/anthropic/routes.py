"""POST /v1/messages and POST /v1/messages/count_tokens."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response

from vfastml.engine.dispatch_engine import DispatchEngine
from vfastml.engine.dispatch_replies import Tokenized
from vfastml.engine.request_id import gen_request_id
from vfastml.entrypoints.anthropic.count_request import CountTokensRequest
from vfastml.entrypoints.anthropic.error_envelope import PATH
from vfastml.entrypoints.anthropic.message_form import MessageForm
from vfastml.entrypoints.anthropic.messages_request import MessagesRequest
from vfastml.entrypoints.http_errors import ApiJSONResponse
from vfastml.entrypoints.routes import Route
from vfastml.entrypoints.text_answer import answer, succeeded
from vfastml.entrypoints.validation import parse_body


def anthropic_routes(engine: DispatchEngine, keep_alive_s: float) -> list[Route]:
    """The built-in routes."""

    async def messages(request: Request) -> Response:
        body = parse_body(await request.body(), MessagesRequest)
        message_id = gen_request_id("msg").replace("-", "_")
        form = MessageForm(body.style(), message_id)
        work = [body.to_work(message_id)]
        return await answer(engine, form, work, stream=bool(body.stream), keep_alive_s=keep_alive_s)

    async def count_tokens(request: Request) -> Response:
        body = parse_body(await request.body(), CountTokensRequest)
        result = await succeeded(engine.dispatch(body.to_work(gen_request_id("count"))))
        counted: Tokenized = result.result
        return ApiJSONResponse({"input_tokens": len(counted.tokens)})

    return [
        Route("POST", PATH, messages, "Answer a conversation", MessagesRequest),
        Route("POST", f"{PATH}/count_tokens", count_tokens, "Count a conversation's tokens", CountTokensRequest),
    ]
