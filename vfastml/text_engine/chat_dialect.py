"""How a model writes what is not plain text: tool calls and reasoning."""

from __future__ import annotations

from dataclasses import dataclass

from vfastml.errors import InvalidRequestError
from vfastml.text_engine.output_parsers.reasoning import REASONING, ReasoningMarkers, reasoning_of
from vfastml.text_engine.tools.tool_format import TOOL_FORMATS, ToolFormat, tool_format_of

TOOL_CALL_PARSERS = ("auto", *TOOL_FORMATS)
"""What an operator may ask for: `auto` is found in the chat template."""
REASONING_PARSERS = ("auto", "none", *REASONING)
"""The same; `none` leaves reasoning in the text."""


@dataclass(frozen=True, slots=True)
class ChatDialect:
    """Of one model."""

    tools: ToolFormat
    reasoning: ReasoningMarkers | None


def chat_dialect(template: str, tool_call_parser: str = "auto", reasoning_parser: str = "auto") -> ChatDialect:
    """What the operator says, or the chat template shows. Raises InvalidRequestError for unknown names."""
    _check("tool call parser", tool_call_parser, TOOL_CALL_PARSERS)
    _check("reasoning parser", reasoning_parser, REASONING_PARSERS)
    tools = tool_format_of(template) if tool_call_parser == "auto" else TOOL_FORMATS[tool_call_parser]
    reasoning = reasoning_of(template) if reasoning_parser == "auto" else REASONING.get(reasoning_parser)
    return ChatDialect(tools, reasoning)


def _check(what: str, name: str, known: tuple[str, ...]) -> None:
    if name not in known:
        raise InvalidRequestError(f"The {what} {name!r} is not known: use {', '.join(known)}.")
