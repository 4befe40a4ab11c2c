"""What a response repeats of its request."""

from __future__ import annotations

import time
from typing import Any

import msgspec

from vfastml.entrypoints.openai.responses.function_tools import told_tools
from vfastml.entrypoints.openai.responses.responses_request import ResponsesRequest
from vfastml.errors import InvalidRequestError

_FREE_TEXT = {"type": "text"}


def response_head(request: ResponsesRequest, response_id: str, model: str) -> dict[str, Any]:
    """The body before the model has said anything. Parameters that were left out are null: the model server knows its
    own defaults. Raises InvalidRequestError for tools, or a format, that are nested too deep to be repeated."""
    form = None if request.text is None else request.text.format
    return {
        "id": response_id,
        "object": "response",
        "created_at": int(time.time()),
        "completed_at": None,
        "status": "queued",
        "error": None,
        "incomplete_details": None,
        "background": bool(request.background),
        "instructions": request.instructions,
        "max_output_tokens": request.max_output_tokens,
        "max_tool_calls": request.max_tool_calls,
        "metadata": request.metadata or {},
        "model": model,
        "output": [],
        "parallel_tool_calls": request.parallel_tool_calls is not False,
        "previous_response_id": request.previous_response_id,
        "reasoning": {"effort": None if request.reasoning is None else request.reasoning.effort, "summary": None},
        "service_tier": None,
        "store": request.store is not False,
        "temperature": request.temperature,
        "text": _encoded({"format": _FREE_TEXT if form is None else form.told()}, "text"),
        "tool_choice": _encoded(request.tool_choice or "auto", "tool_choice"),
        "tools": _encoded(told_tools(request.tools or ()), "tools"),
        "top_logprobs": request.top_logprobs or 0,
        "top_p": request.top_p,
        "truncation": request.truncation or "disabled",
        "usage": None,
        "user": request.user,
    }


def _encoded(value: Any, param: str) -> msgspec.Raw:
    """Once for all the times that it is told."""
    try:
        return msgspec.Raw(msgspec.json.encode(value))
    except RecursionError:
        raise InvalidRequestError(f"'{param}' is nested too deep.", param=param) from None
