"""A conversation in Anthropic's form as the chat messages that templates know."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

from pydantic import model_validator

from vfastml.entrypoints.anthropic.content_blocks import (
    Block,
    Content,
    TextBlock,
    TextContent,
    ThinkingBlock,
    ToolResultBlock,
    ToolUseBlock,
    joined,
)

Message = dict[str, Any]

_BLOCKS_OF = {
    "user": ("text", "tool_result"),
    "assistant": ("text", "thinking", "redacted_thinking", "tool_use"),
    "system": ("text",),
}


class Turn(Block):
    """One message."""

    role: Literal["user", "assistant", "system"]
    content: Content

    @model_validator(mode="after")
    def _check_blocks(self) -> Turn:
        for block in self.content:
            if block.type not in _BLOCKS_OF[self.role]:
                raise ValueError(f"a message of the role '{self.role}' cannot have a block of the type '{block.type}'")
        return self


def chat_messages(system: TextContent | None, turns: Sequence[Turn]) -> list[Message]:
    """The same as chat messages: turns of one role in a row are one, each result of a tool is a message, and a last
    turn of the assistant's that says nothing is left out."""
    chat = _Chat()
    if instructions := joined(system or []):
        chat.say("system", instructions)
    for turn in turns:
        chat.add(turn)
    if turns and turns[-1].role == "assistant" and chat.ends_with_nothing():
        chat.messages.pop()
    return chat.messages


class _Chat:
    def __init__(self) -> None:
        self.messages: list[Message] = []
        self._called: dict[str, str] = {}
        """Names of the tools that were called, by the ids of the calls."""

    def add(self, turn: Turn) -> None:
        if turn.role == "assistant":
            self._add_answer(turn.content)
            return
        for block in turn.content:
            if isinstance(block, ToolResultBlock):
                self._add_result(block)
            elif isinstance(block, TextBlock):
                self.say(turn.role, block.text)
        if not turn.content:
            self.say(turn.role, "")

    def say(self, role: str, text: str) -> Message:
        """The message that has the text now."""
        last = self.messages[-1] if self.messages else {}
        if last.get("role") != role or "tool_calls" in last:
            self.messages.append({"role": role, "content": text})
        else:
            last["content"] = "\n".join(filter(None, (last["content"], text)))
        return self.messages[-1]

    def ends_with_nothing(self) -> bool:
        last = self.messages[-1]
        return last["role"] == "assistant" and not last["content"] and "tool_calls" not in last

    def _add_answer(self, blocks: Content) -> None:
        message = self.say("assistant", joined([block for block in blocks if isinstance(block, TextBlock)]))
        thoughts = [block.thinking for block in blocks if isinstance(block, ThinkingBlock)]
        calls = [block for block in blocks if isinstance(block, ToolUseBlock)]
        if any(thoughts):
            message["reasoning_content"] = "\n".join(thoughts)
        if calls:
            message["tool_calls"] = [_as_call(call) for call in calls]
            self._called.update({call.id: call.name for call in calls})

    def _add_result(self, block: ToolResultBlock) -> None:
        text = joined(block.content or [])
        message = {"role": "tool", "tool_call_id": block.tool_use_id, "content": text}
        if block.is_error:
            message["content"] = f"Error: {text}"
        if name := self._called.get(block.tool_use_id):
            message["name"] = name
        self.messages.append(message)


def _as_call(block: ToolUseBlock) -> Message:
    return {"id": block.id, "type": "function", "function": {"name": block.name, "arguments": block.input}}
