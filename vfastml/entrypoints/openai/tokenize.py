"""POST /tokenize and POST /detokenize, in vLLM's shapes."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar

from pydantic import Field, model_validator
from starlette.requests import Request
from starlette.responses import Response

from vfastml.engine.dispatch_engine import DispatchEngine
from vfastml.engine.dispatch_requests import DetokenizeReq, TokenizeReq
from vfastml.engine.request_id import gen_request_id
from vfastml.entrypoints.limits import MAX_PROMPT_TOKENS
from vfastml.entrypoints.openai import unsupported_fields
from vfastml.entrypoints.openai.api_request import ApiRequest
from vfastml.entrypoints.openai.json_response import build_json_response
from vfastml.entrypoints.openai.messages import Messages
from vfastml.entrypoints.routes import Route
from vfastml.entrypoints.validation import parse_body
from vfastml.errors import InvalidRequestError

TokenId = Annotated[int, Field(ge=0, lt=1 << 31)]


class TokenizeRequest(ApiRequest):
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
        )


class DetokenizeRequest(ApiRequest):
    """Token ids of that model."""

    tokens: Annotated[list[TokenId], Field(max_length=MAX_PROMPT_TOKENS)]

    def to_work(self, request_id: str) -> DetokenizeReq:
        """What the engine takes."""
        return DetokenizeReq(request_id=request_id, model_uri=self.model, tokens=self.tokens)


def tokenize_routes(engine: DispatchEngine) -> list[Route]:
    """The built-in routes."""

    def route(path: str, schema: type[TokenizeRequest | DetokenizeRequest], summary: str) -> Route:
        async def endpoint(request: Request) -> Response:
            body: Any = parse_body(await request.body(), schema)
            work = body.to_work(gen_request_id("tok"))
            return build_json_response(work.request_id, await engine.dispatch(work).get_result())

        return Route("POST", path, endpoint, summary, schema)

    return [
        route("/tokenize", TokenizeRequest, "Token ids of a text"),
        route("/detokenize", DetokenizeRequest, "Text of token ids"),
    ]
