"""The response for one result that is there as a whole."""

from __future__ import annotations

from typing import Any

from starlette.responses import JSONResponse

from vfastml.engine.dispatch_replies import Detokenized, Tokenized
from vfastml.engine.dispatch_requests import TextGenerationReq
from vfastml.engine.dispatch_result import DispatchRequestResult
from vfastml.entrypoints.http_errors import ApiJSONResponse, error_response
from vfastml.entrypoints.openai.replies import whole_body
from vfastml.entrypoints.openai.reply_styles import ChatStyle, CompletionStyle


def build_json_response(request_id: str, result: DispatchRequestResult) -> JSONResponse:
    """The OpenAI body of a result: `chat.completion` for messages, `text_completion` for a prompt; `count` and `tokens`
    or `prompt` for tokenizing and back; `output` for a one-shot model. A failed result is the error envelope, with its
    status and retry headers."""
    if result.error is not None:
        return error_response(result.error)
    return ApiJSONResponse(_body(request_id, result))


def _body(request_id: str, result: DispatchRequestResult) -> dict[str, Any]:
    if isinstance(result.request, TextGenerationReq):
        return whole_body(CompletionStyle() if result.request.messages is None else ChatStyle(), request_id, [result])
    if isinstance(result.result, Tokenized):
        tokens = result.result.tokens
        return {"count": len(tokens), "max_model_len": result.result.max_model_len, "tokens": tokens}
    if isinstance(result.result, Detokenized):
        return {"prompt": result.result.prompt}
    return {"output": result.result}
