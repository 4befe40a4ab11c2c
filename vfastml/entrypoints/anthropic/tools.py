"""Tools in Anthropic's form."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator

from vfastml.engine.dispatch_requests import ToolUse
from vfastml.entrypoints.anthropic.content_blocks import Block, Id
from vfastml.entrypoints.collection_bound import AtMost, FreeObject
from vfastml.entrypoints.limits import MAX_TOOLS
from vfastml.entrypoints.openai.tool_fields import tool_use
from vfastml.errors import InvalidRequestError, UnsupportedError

_CHOICES = {"auto": "auto", "any": "required", "none": "none"}


class Tool(Block):
    """A function that the client runs."""

    type: Literal["custom"] | None = None
    name: Id
    description: str | None = None
    input_schema: FreeObject
    strict: bool | None = None


class ToolChoice(Block):
    """Whether a tool, and which one, must be used."""

    type: Literal["auto", "any", "tool", "none"]
    name: Id | None = None
    """With `tool`."""
    disable_parallel_tool_use: bool | None = None


def _custom_only(tools: Any) -> Any:
    for position, tool in enumerate(tools if isinstance(tools, list) else ()):
        kind = tool.get("type") if isinstance(tool, dict) else getattr(tool, "type", None)
        if kind not in (None, "custom"):
            raise UnsupportedError(
                f"'tools[{position}].type': only custom tools are supported, none of those that Anthropic defines.",
                param="tools",
            )
    return tools


Tools = Annotated[list[Tool], AtMost(MAX_TOOLS), BeforeValidator(_custom_only)]


def offered_tools(tools: Sequence[Tool] | None, choice: ToolChoice | None) -> ToolUse | None:
    """What the engine takes; None where no tool is offered. Raises InvalidRequestError for what does not fit."""
    parallel = None if choice is None else not choice.disable_parallel_tool_use
    return tool_use([_as_function(tool) for tool in tools or ()], _chosen(choice), parallel)


def _chosen(choice: ToolChoice | None) -> str | dict[str, Any] | None:
    if choice is None:
        return None
    if choice.type != "tool":
        return _CHOICES[choice.type]
    if choice.name is None:
        raise InvalidRequestError("'tool_choice' of the type 'tool' must have a 'name'.", param="tool_choice")
    return {"type": "function", "function": {"name": choice.name}}


def _as_function(tool: Tool) -> dict[str, Any]:
    function = {"name": tool.name, "description": tool.description, "strict": tool.strict}
    return {"type": "function", "function": {**function, "parameters": tool.input_schema}}
