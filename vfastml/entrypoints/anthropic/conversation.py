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
    return chat.ended()


class _OpenMessage:
    """A message that more may come to. Its pieces are joined at the end: joined one by one, the first would be copied
    as often as others follow."""

    def __init__(self, role: str) -> None:
        self.role = role
        self.texts: list[str] = []
        self.thoughts: list[str] = []
        self.calls: list[ToolUseBlock] = []

    def says_nothing(self) -> bool:
        return not any(self.texts) and not self.calls

    def closed(self) -> Message:
        message: Message = {"role": self.role, "content": _lines(self.texts)}
        if any(self.thoughts):
            message["reasoning_content"] = _lines(self.thoughts)
        if self.calls:
            message["tool_calls"] = [_as_call(call) for call in self.calls]
        return message


class _Chat:
    def __init__(self) -> None:
        self._messages: list[Message] = []
        self._open: _OpenMessage | None = None
        """What comes after them."""
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
            self.say(turn.role)

    def say(self, role: str, *texts: str) -> _OpenMessage:
        """The message that has the texts now."""
        if self._open is None or self._open.role != role or self._open.calls:
            self._close()
            self._open = _OpenMessage(role)
        self._open.texts += texts
        return self._open

    def ended(self) -> list[Message]:
        """All messages."""
        if self._open is not None and not (self._open.role == "assistant" and self._open.says_nothing()):
            self._close()
        return self._messages

    def _close(self) -> None:
        if self._open is not None:
            self._messages.append(self._open.closed())
            self._open = None

    def _add_answer(self, blocks: Content) -> None:
        answer = self.say("assistant", *(block.text for block in blocks if isinstance(block, TextBlock)))
        answer.thoughts += [block.thinking for block in blocks if isinstance(block, ThinkingBlock)]
        answer.calls += [block for block in blocks if isinstance(block, ToolUseBlock)]
        self._called.update({call.id: call.name for call in answer.calls})

    def _add_result(self, block: ToolResultBlock) -> None:
        self._close()
        text = joined(block.content or [])
        message = {"role": "tool", "tool_call_id": block.tool_use_id, "content": text}
        if block.is_error:
            message["content"] = f"Error: {text}"
        if name := self._called.get(block.tool_use_id):
            message["name"] = name
        self._messages.append(message)


def _lines(pieces: list[str]) -> str:
    return "\n".join(filter(None, pieces))


def _as_call(block: ToolUseBlock) -> Message:
    return {"id": block.id, "type": "function", "function": {"name": block.name, "arguments": block.input}}
