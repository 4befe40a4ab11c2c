"""POST /v1/chat/completions."""

from __future__ import annotations

from typing import ClassVar

from starlette.requests import Request
from starlette.responses import Response

from vfastml.engine.dispatch_engine import DispatchEngine
from vfastml.engine.dispatch_requests import TextGenerationReq
from vfastml.engine.request_id import gen_request_id
from vfastml.entrypoints.openai import reply_styles, unsupported_fields
from vfastml.entrypoints.openai.messages import Messages
from vfastml.entrypoints.openai.text_generation import answer
from vfastml.entrypoints.openai.text_request import TextRequest
from vfastml.entrypoints.routes import Route
from vfastml.entrypoints.validation import parse_body


class ChatCompletionsRequest(TextRequest):
    """The body of a chat request. `messages` are plain dicts, ready for TextGenerationReq."""

    unsupported: ClassVar = unsupported_fields.CHAT

    messages: Messages

    def to_work(self, request_id: str) -> TextGenerationReq:
        """What the engine takes."""
        return TextGenerationReq(
            request_id=request_id,
            model_uri=self.model,
            messages=self.messages,
            sampling=self.sampling(),
            n=self.n,
            stream=bool(self.stream),
            return_token_ids=bool(self.return_token_ids),
            cache_salt=self.cache_salt or "",
        )


def chat_route(engine: DispatchEngine, keep_alive_s: float) -> Route:
    """The built-in route."""

    async def chat_completions(request: Request) -> Response:
        body = parse_body(await request.body(), ChatCompletionsRequest)
        request_id = gen_request_id("chatcmpl")
        return await answer(engine, reply_styles.CHAT, request_id, body, [body.to_work(request_id)], keep_alive_s)

    return Route("POST", "/v1/chat/completions", chat_completions, "Answer a chat", ChatCompletionsRequest)
