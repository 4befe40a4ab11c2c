"""POST /v1/chat/completions."""

from __future__ import annotations

from typing import Annotated, ClassVar

from pydantic import Field, model_validator
from starlette.requests import Request
from starlette.responses import Response

from vfastml.engine.dispatch_engine import DispatchEngine
from vfastml.engine.dispatch_requests import TextGenerationReq
from vfastml.engine.request_id import gen_request_id
from vfastml.engine.text_parameters import MAX_LOGPROBS
from vfastml.entrypoints.openai import unsupported_fields
from vfastml.entrypoints.openai.messages import Messages
from vfastml.entrypoints.openai.reply_form import ReplyForm
from vfastml.entrypoints.openai.reply_styles import ChatStyle, ReplyStyle
from vfastml.entrypoints.openai.template_fields import TemplateFields
from vfastml.entrypoints.openai.text_request import TextRequest
from vfastml.entrypoints.openai.tool_fields import ToolFields
from vfastml.entrypoints.routes import Route
from vfastml.entrypoints.text_answer import answer
from vfastml.entrypoints.validation import parse_body
from vfastml.errors import InvalidRequestError


class ChatCompletionsRequest(TextRequest, ToolFields, TemplateFields):
    """The body of a chat request. `messages` are plain dicts, ready for TextGenerationReq."""

    unsupported: ClassVar = unsupported_fields.CHAT

    messages: Messages
    logprobs: bool | None = None
    """Report the log probability of each generated token."""
    top_logprobs: Annotated[int, Field(ge=0, le=MAX_LOGPROBS)] | None = None
    """And of so many most probable ones in its place."""
    include_reasoning: bool | None = None
    """False leaves reasoning out of the answer; default true."""
    separate_reasoning: bool | None = None
    """False leaves reasoning in the text; default true."""

    def to_work(self, request_id: str) -> TextGenerationReq:
        """What the engine takes."""
        return TextGenerationReq(
            request_id=request_id,
            messages=self.messages,
            tool_use=self.tool_use(),
            template=self.template(),
            splits_reasoning=self.separate_reasoning is not False,
            **self.shared_work(),
        )

    def style(self) -> ReplyStyle:
        """How the answer is worded."""
        return ChatStyle(
            names_ids=bool(self.return_tokens_as_token_ids), shows_reasoning=self.include_reasoning is not False
        )

    def num_logprobs(self) -> int | None:
        """See SamplingFields."""
        return self.top_logprobs or 0 if self.logprobs else None

    @model_validator(mode="after")
    def _check_top_logprobs(self) -> ChatCompletionsRequest:
        if self.top_logprobs and not self.logprobs:
            raise InvalidRequestError("'top_logprobs' needs 'logprobs' to be true.", param="top_logprobs")
        return self


def chat_route(engine: DispatchEngine, keep_alive_s: float) -> Route:
    """The built-in route."""

    async def chat_completions(request: Request) -> Response:
        body = parse_body(await request.body(), ChatCompletionsRequest)
        request_id = gen_request_id("chatcmpl")
        form = ReplyForm(body, body.style(), request_id)
        return await answer(
            engine, form, [body.to_work(request_id)], stream=bool(body.stream), keep_alive_s=keep_alive_s
        )

    return Route("POST", "/v1/chat/completions", chat_completions, "Answer a chat", ChatCompletionsRequest)
