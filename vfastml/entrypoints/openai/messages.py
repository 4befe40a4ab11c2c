"""Chat messages: checked for what every template relies on, and passed on as they came."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    GetPydanticSchema,
    PlainValidator,
    ValidatorFunctionWrapHandler,
    WrapValidator,
)

from vfastml.engine.dispatch_requests import TextGenerationMessage
from vfastml.entrypoints.collection_bound import AtMost
from vfastml.entrypoints.limits import MAX_CONTENT_PARTS, MAX_MESSAGES
from vfastml.errors import UnsupportedError

_TEXT_PARTS = ("text", "refusal")


class TextPart(BaseModel):
    """A piece of a message's content: `text` in a `text` part, `refusal` in a `refusal` part."""

    type: Literal["text", "refusal"]
    text: str | None = None
    refusal: str | None = None


def _checked_content(content: Any) -> Any:
    if isinstance(content, list):
        if len(content) > MAX_CONTENT_PARTS:
            raise ValueError(f"there may be at most {MAX_CONTENT_PARTS} parts")
        for part in content:
            _check_part(part)
    elif content is not None and not isinstance(content, str):
        raise ValueError("must be a string, a list of text parts or null")
    return content


def _check_part(part: Any) -> None:
    kind = part.get("type") if isinstance(part, dict) else None
    if not isinstance(kind, str):
        raise ValueError("each part must be an object with a 'type'")
    if kind not in _TEXT_PARTS:
        raise UnsupportedError("Only text parts are supported in the content of a message.", param="messages")
    if not isinstance(part.get(kind), str):
        raise ValueError(f"a part of type '{kind}' must have a string '{kind}'")


class ChatMessage(BaseModel):
    """One message. Other keys (`name`, `tool_calls`, `tool_call_id`, ...) reach the template as they are."""

    model_config = ConfigDict(strict=True, extra="allow")

    role: Literal["system", "developer", "user", "assistant", "tool", "function"]
    content: Annotated[Any, PlainValidator(_checked_content, json_schema_input_type=str | list[TextPart] | None)] = None


def _one_user_message(value: Any) -> Any:
    return [{"role": "user", "content": value}] if isinstance(value, str) else value


def _kept_as_sent(value: Any, check: ValidatorFunctionWrapHandler) -> list[TextGenerationMessage]:
    check(value)
    return [TextGenerationMessage.of(message) for message in value]


_CheckedMessages = Annotated[
    list[ChatMessage],
    Field(min_length=1),
    AtMost(MAX_MESSAGES),
    WrapValidator(_kept_as_sent),
    BeforeValidator(_one_user_message, json_schema_input_type=str | list[ChatMessage]),
]

Messages = Annotated[list[dict[str, Any]], GetPydanticSchema(lambda _, schema_of: schema_of(_CheckedMessages))]
"""At least one message, or a string that stands for one of the user's. All are TextGenerationMessages."""
