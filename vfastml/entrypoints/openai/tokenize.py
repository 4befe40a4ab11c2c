"""POST /tokenize and POST /detokenize in vLLM's shapes; POST /apply-template and
POST /v1/chat/completions/input_tokens in llama.cpp's."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any, ClassVar

from pydantic import model_validator
from starlette.requests import Request
from starlette.responses import Response

from vfastml.engine.dispatch_engine import DispatchEngine
from vfastml.engine.dispatch_replies import Tokenized
from vfastml.engine.dispatch_requests import DetokenizeReq, TokenizeReq
from vfastml.engine.request_id import gen_request_id
from vfastml.entrypoints.collection_bound import AtMost
from vfastml.entrypoints.http_errors import ApiJSONResponse
from vfastml.entrypoints.limits import MAX_PROMPT_TOKENS
from vfastml.entrypoints.openai import unsupported_fields
from vfastml.entrypoints.openai.api_request import ApiRequest
from vfastml.entrypoints.openai.json_response import build_json_response
from vfastml.entrypoints.openai.messages import Messages
from vfastml.entrypoints.openai.sampling_fields import TokenId
from vfastml.entrypoints.openai.template_fields import TemplateFields
from vfastml.entrypoints.openai.tool_fields import ToolFields
from vfastml.entrypoints.routes import Route
from vfastml.entrypoints.text_answer import succeeded
from vfastml.entrypoints.validation import parse_body
from vfastml.errors import InvalidRequestError


class TokenizeRequest(ToolFields, TemplateFields):
    """Either a prompt or messages, which are rendered with the model's chat template first."""

    unsupported: ClassVar = unsupported_fields.TOKENIZE

    prompt: str | None = None
    messages: Messages | None = None
    add_special_tokens: bool | None = None
    """For a prompt only: chat templates write their own. Default true."""

    @model_validator(mode="after")
    def _check_one_of(self) -> TokenizeRequest:
        if (self.prompt is None) == (self.messages is None):
            raise InvalidRequestError("Send either 'prompt' or 'messages'.", param="prompt")
        return self

    def to_work(self, request_id: str) -> TokenizeReq:
        """What the engine takes."""
        return TokenizeReq(
            request_id=request_id,
            model_uri=self.model,
            prompt=self.prompt,
            messages=self.messages,
            add_special_tokens=self.add_special_tokens is not False,
            template=self.template(),
            tools=self.described_tools(),
        )


class RenderRequest(ToolFields, TemplateFields):
    """Messages, as a chat request has them; its other fields are ignored."""

    unsupported: ClassVar = unsupported_fields.TOKENIZE

    messages: Messages

    def to_work(self, request_id: str) -> TokenizeReq:
        """What the engine takes."""
        return TokenizeReq(
            request_id=request_id,
            model_uri=self.model,
            messages=self.messages,
            template=self.template(),
            tools=self.described_tools(),
            with_text=True,
        )


class DetokenizeRequest(ApiRequest):
    """Token ids of that model."""

    tokens: Annotated[list[TokenId], AtMost(MAX_PROMPT_TOKENS)]

    def to_work(self, request_id: str) -> DetokenizeReq:
        """What the engine takes."""
        return DetokenizeReq(request_id=request_id, model_uri=self.model, tokens=self.tokens)


def tokenize_routes(engine: DispatchEngine) -> list[Route]:
    """The built-in routes."""

    def route(path: str, schema: type[Any], summary: str, respond: Callable[[Any], Any] | None = None) -> Route:
        async def endpoint(request: Request) -> Response:
            body = parse_body(await request.body(), schema)
            work = body.to_work(gen_request_id("tok"))
            result = await succeeded(engine.dispatch(work))
            if respond is None:
                return build_json_response(work.request_id, result)
            return ApiJSONResponse(respond(result.result))

        return Route("POST", path, endpoint, summary, schema)

    return [
        route("/tokenize", TokenizeRequest, "Token ids of a text"),
        route("/detokenize", DetokenizeRequest, "Text of token ids"),
        route("/apply-template", RenderRequest, "The prompt that messages become", _rendered),
        route("/v1/chat/completions/input_tokens", RenderRequest, "Tokens of a chat's prompt", _counted),
    ]


def _rendered(tokenized: Tokenized) -> dict[str, Any]:
    return {"prompt": tokenized.text}


def _counted(tokenized: Tokenized) -> dict[str, Any]:
    return {"object": "response.input_tokens", "input_tokens": len(tokenized.tokens)}
