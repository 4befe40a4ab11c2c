"""Content of a message in Anthropic's form: a string, or blocks of several kinds."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Discriminator, Field, Tag

from vfastml.entrypoints.collection_bound import AtMost, FreeObject
from vfastml.entrypoints.limits import MAX_CONTENT_PARTS, MAX_NAME_CHARS
from vfastml.errors import UnsupportedError

_UNSUPPORTED = ("image", "document", "search_result", "server_tool_use", "container_upload", "compaction")
"""Kinds of blocks that clients know; so are results of tools that a server of Anthropic's runs."""

Id = Annotated[str, Field(max_length=MAX_NAME_CHARS)]


class Block(BaseModel):
    """A part of a content, or of a body. What else a client puts into it (`cache_control`, `signature` ...) is
    ignored."""

    model_config = ConfigDict(strict=True, extra="ignore", frozen=True)


class TextBlock(Block):
    type: Literal["text"]
    text: str


class ThinkingBlock(Block):
    """What the model thought before. Its signature is not looked at."""

    type: Literal["thinking"]
    thinking: str


class RedactedThinkingBlock(Block):
    """Thoughts that only another server can read."""

    type: Literal["redacted_thinking"]


class ToolUseBlock(Block):
    """A call that the model asked for."""

    type: Literal["tool_use"]
    id: Id
    name: Id
    input: FreeObject


def _as_blocks(content: Any) -> Any:
    """Raises UnsupportedError for a block that no model here can read."""
    if isinstance(content, str):
        return [{"type": "text", "text": content}]
    for block in content if isinstance(content, list) else ():
        _refuse_unsupported(_kind(block))
    return content


def _refuse_unsupported(kind: str | None) -> None:
    if kind in _UNSUPPORTED:
        raise UnsupportedError(f"Content blocks of the type '{kind}' are not supported.", param="messages")
    if kind is not None and kind.endswith("_tool_result"):
        raise UnsupportedError("Results of tools that a server runs are not supported.", param="messages")


def _kind(block: Any) -> str | None:
    kind = block.get("type") if isinstance(block, dict) else getattr(block, "type", None)
    return kind if isinstance(kind, str) else None


_Few = AtMost(MAX_CONTENT_PARTS)

TextContent = Annotated[
    list[TextBlock], _Few, BeforeValidator(_as_blocks, json_schema_input_type=str | list[TextBlock])
]
"""A string is one block of text."""


class ToolResultBlock(Block):
    """What came of a call."""

    type: Literal["tool_result"]
    tool_use_id: Id
    content: TextContent | None = None
    is_error: bool | None = None


AnyBlock = Annotated[
    Annotated[TextBlock, Tag("text")]
    | Annotated[ThinkingBlock, Tag("thinking")]
    | Annotated[RedactedThinkingBlock, Tag("redacted_thinking")]
    | Annotated[ToolUseBlock, Tag("tool_use")]
    | Annotated[ToolResultBlock, Tag("tool_result")],
    Discriminator(_kind),
]

Content = Annotated[list[AnyBlock], _Few, BeforeValidator(_as_blocks, json_schema_input_type=str | list[AnyBlock])]
"""A string is one block of text."""


def joined(blocks: list[TextBlock]) -> str:
    """Their text, each block on lines of its own."""
    return "\n".join(block.text for block in blocks)
