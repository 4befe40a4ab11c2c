"""The fields of a body that offer tools: `tools`, `tool_choice` and `parallel_tool_calls`, as chat completions have
them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Annotated, Any

from pydantic import model_validator

from vfastml.engine.dispatch_requests import ToolUse
from vfastml.entrypoints.collection_bound import AtMost
from vfastml.entrypoints.limits import MAX_TOOLS
from vfastml.entrypoints.openai.api_request import ApiRequest
from vfastml.errors import InvalidRequestError, UnsupportedError

_NAME = re.compile(r"[A-Za-z0-9_.-]{1,128}")
_KINDS = ("auto", "none", "required")

Tool = dict[str, Any]


class ToolFields(ApiRequest):
    """Functions that the model may call."""

    tools: Annotated[list[Any], AtMost(MAX_TOOLS)] | None = None
    tool_choice: Any = None
    parallel_tool_calls: bool | None = None

    @model_validator(mode="after")
    def _check_tools(self) -> ToolFields:
        self.tool_use()
        return self

    def tool_use(self) -> ToolUse | None:
        """What the engine takes. Raises what `tool_use` raises."""
        return tool_use(self.tools, self.tool_choice, self.parallel_tool_calls)

    def described_tools(self) -> list[Tool]:
        """Those that the prompt tells the model of."""
        return described_tools(self.tool_use())


def described_tools(use: ToolUse | None) -> list[Tool]:
    """Those that the prompt tells the model of."""
    return [] if use is None or use.choice == "none" else use.tools


def tool_use(tools: Sequence[Any] | None, tool_choice: Any, parallel: bool | None) -> ToolUse | None:
    """What the engine takes; None where no tool is offered. Raises InvalidRequestError for what is malformed, and
    UnsupportedError for tools that are no functions."""
    offered = _checked_tools(tools or ())
    choice, names = _checked_choice(tool_choice)
    unknown = set(names) - {_name_of(tool) for tool in offered}
    if unknown or (choice == "required" and not offered):
        raise _bad_choice("must name tools that are offered in 'tools'")
    if isinstance(tool_choice, dict) and names:
        offered = [tool for tool in offered if _name_of(tool) in names]
    if not offered:
        return None
    named = names[0] if isinstance(tool_choice, dict) and tool_choice["type"] == "function" else None
    return ToolUse(offered, choice, named, parallel is not False)  # type: ignore[arg-type]


def _checked_tools(tools: Sequence[Any]) -> list[Tool]:
    checked = [_checked_tool(tool) for tool in tools]
    if len({_name_of(tool) for tool in checked}) < len(checked):
        raise _bad_tools("must have a name of its own in each function")
    return checked


def _checked_tool(tool: Any) -> Tool:
    kind = tool.get("type") if isinstance(tool, dict) else None
    if not isinstance(kind, str):
        raise _bad_tools("must be a list of objects with a 'type'")
    if kind != "function":
        raise UnsupportedError("Only tools of the type 'function' are supported.", param="tools")
    function = tool.get("function")
    name = function.get("name") if isinstance(function, dict) else None
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise _bad_tools("must name each function, with 1 to 128 letters, digits, dots, dashes or underscores")
    parameters, description = function.get("parameters"), function.get("description")
    if parameters is not None and not isinstance(parameters, dict):
        raise _bad_tools("must have an object as the 'parameters' of a function")
    if description is not None and not isinstance(description, str):
        raise _bad_tools("must have a string as the 'description' of a function")
    if not isinstance(function.get("strict"), bool | None):
        raise _bad_tools("must have true or false as 'strict' of a function")
    return {"type": "function", "function": {key: value for key, value in function.items() if value is not None}}


def _checked_choice(choice: Any) -> tuple[str, list[str]]:
    """The kind of choice, and the names that it is limited to, if any."""
    if choice is None:
        return "auto", []
    if isinstance(choice, str) and choice in _KINDS:
        return choice, []
    if not isinstance(choice, dict):
        raise _bad_choice("must be 'auto', 'none', 'required' or an object that names a function")
    if choice.get("type") == "function":
        return "required", [_function_named(choice)]
    if choice.get("type") == "allowed_tools":
        return _allowed_tools(choice.get("allowed_tools"))
    raise UnsupportedError("'tool_choice' can only name a function, or allowed tools.", param="tool_choice")


def _allowed_tools(allowed: Any) -> tuple[str, list[str]]:
    mode = allowed.get("mode") if isinstance(allowed, dict) else None
    tools = allowed.get("tools") if isinstance(allowed, dict) else None
    if mode not in ("auto", "required") or not isinstance(tools, list) or not tools:
        raise _bad_choice("of the type 'allowed_tools' must have a 'mode', auto or required, and 'tools'")
    if len(tools) > MAX_TOOLS:
        raise _bad_choice(f"may have at most {MAX_TOOLS} allowed tools")
    return mode, [_function_named(tool) for tool in tools]


def _function_named(value: Any) -> str:
    function = value.get("function") if isinstance(value, dict) else None
    name = function.get("name") if isinstance(function, dict) else None
    if not isinstance(name, str):
        raise _bad_choice("must name a function as {'type': 'function', 'function': {'name': ...}}")
    return name


def _name_of(tool: Tool) -> str:
    return str(tool["function"]["name"])


def _bad_tools(words: str) -> InvalidRequestError:
    return InvalidRequestError(f"'tools' {words}.", param="tools")


def _bad_choice(words: str) -> InvalidRequestError:
    return InvalidRequestError(f"'tool_choice' {words}.", param="tool_choice")
