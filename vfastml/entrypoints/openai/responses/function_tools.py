"""Tools in the flat form of the Responses API, put into that of chat completions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from vfastml.engine.dispatch_requests import ToolUse
from vfastml.entrypoints.openai.tool_fields import tool_use
from vfastml.errors import InvalidRequestError

_KEYS = ("name", "description", "parameters", "strict")


def flat_tool_use(tools: Sequence[Any], choice: Any, parallel: bool | None) -> ToolUse | None:
    """What the engine takes; see `tool_use`, which raises what is raised here."""
    return tool_use([_nested(tool) for tool in tools], _nested_choice(choice), parallel)


def told_tools(tools: Sequence[Any]) -> list[dict[str, Any]]:
    """Checked tools as the response repeats them: with all that the API says of a function."""
    return [{"type": "function", **{key: tool.get(key) for key in _KEYS}} for tool in tools]


def _nested(tool: Any) -> Any:
    """What is no function stays as it is, to be refused."""
    if not isinstance(tool, dict) or tool.get("type") != "function":
        return tool
    return {"type": "function", "function": {key: tool[key] for key in _KEYS if key in tool}}


def _nested_choice(choice: Any) -> Any:
    kind = choice.get("type") if isinstance(choice, dict) else None
    if kind == "function":
        return _nested_name(choice)
    if kind != "allowed_tools":
        return choice
    tools = choice.get("tools")
    names = [_nested_name(tool) for tool in tools] if isinstance(tools, list) else tools
    return {"type": kind, "allowed_tools": {"mode": choice.get("mode"), "tools": names}}


def _nested_name(named: Any) -> dict[str, Any]:
    name = named.get("name") if isinstance(named, dict) else None
    if not isinstance(name, str):
        message = "'tool_choice' must name functions as {'type': 'function', 'name': ...}."
        raise InvalidRequestError(message, param="tool_choice")
    return {"type": "function", "function": {"name": name}}
