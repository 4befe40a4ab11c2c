"""Tools in plain messages, for chat templates that know nothing of them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from vfastml.text_engine.tools.tool_format import ToolFormat

Message = dict[str, Any]


def with_tools_as_text(messages: Sequence[Message], tools: Sequence[Any], tool_format: ToolFormat) -> list[Message]:
    """The same conversation in messages of text alone: what may be called is in the system's, calls are in the
    assistant's, and their results in the user's."""
    plain = [_as_text(message, tool_format) for message in messages]
    if not tools:
        return plain
    description = _description(tools, tool_format)
    if plain and plain[0]["role"] == "system":
        system = f"{plain[0]['content']}\n\n{description}"
        return [{**plain[0], "content": system}, *plain[1:]]
    return [{"role": "system", "content": description}, *plain]


def _as_text(message: Message, tool_format: ToolFormat) -> Message:
    if message["role"] in ("tool", "function"):
        name = message.get("name")
        said = f"The result of {name}" if isinstance(name, str) else "The result of the function"
        return {"role": "user", "content": f"{said}:\n{message['content']}"}
    calls = message.get("tool_calls")
    if not isinstance(calls, list) or not calls:
        return message
    said = tool_format.between.join(_call(call["function"], tool_format) for call in calls)
    text = "\n".join(part for part in (message["content"], f"{tool_format.opening}{said}{tool_format.closing}") if part)
    return {**{key: value for key, value in message.items() if key != "tool_calls"}, "content": text}


def _call(function: Any, tool_format: ToolFormat) -> str:
    arguments = function["arguments"]
    if not tool_format.arguments_are_json and isinstance(arguments, dict):
        written = ", ".join(f"{key}={json.dumps(value, ensure_ascii=False)}" for key, value in arguments.items())
    else:
        written = json.dumps(arguments, ensure_ascii=False)
    return f"{tool_format.before}{function['name']}{tool_format.middle}{written}{tool_format.after}"


def _description(tools: Sequence[Any], tool_format: ToolFormat) -> str:
    functions = "\n".join(json.dumps(tool["function"], ensure_ascii=False) for tool in tools)
    form = f"{tool_format.before}NAME{tool_format.middle}ARGUMENTS{tool_format.after}"
    return (
        f"You can call these functions:\n{functions}\n\n"
        f"To call one, answer with nothing but\n{tool_format.opening}{form}{tool_format.closing}\n"
        "Otherwise answer in plain text."
    )
