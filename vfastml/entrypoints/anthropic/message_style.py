"""How the facts of an answer are worded in Anthropic's form, whole or streamed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from vfastml.engine.dispatch_replies import Usage
from vfastml.engine.dispatch_result import DispatchRequestResult, TextChoice, TextGenerationResult, ToolCall
from vfastml.entrypoints.anthropic.output_fields import ShownThinking

Body = dict[str, Any]

_STOP_REASONS = {"length": "max_tokens", "tool_calls": "tool_use"}


class MessageStyle:
    """Of one answer."""

    def __init__(self, *, stop_sequences: Sequence[str] = (), shown_thinking: ShownThinking = "nothing") -> None:
        self.shown_thinking = shown_thinking
        self._stop_sequences = stop_sequences

    def whole(self, message_id: str, result: DispatchRequestResult) -> Body:
        """The message that a successful result is."""
        answer: TextGenerationResult = result.result
        choice = answer.choices[0]
        return {
            **message(message_id, result.model, answer.usage),
            "content": self._blocks(choice),
            **self.ending(choice.finish_reason, choice.stop_reason),
        }

    def ending(self, finish_reason: str | None, stop_reason: str | int | None) -> Body:
        """Why the text ended."""
        if stop_reason in self._stop_sequences:
            return {"stop_reason": "stop_sequence", "stop_sequence": stop_reason}
        return {"stop_reason": _STOP_REASONS.get(finish_reason or "", "end_turn"), "stop_sequence": None}

    def _blocks(self, choice: TextChoice) -> list[Body]:
        blocks = []
        if choice.reasoning and self.shown_thinking != "nothing":
            shown = choice.reasoning if self.shown_thinking == "whole" else ""
            blocks.append({**thinking_block(), "thinking": shown})
        if choice.text:
            blocks.append({**text_block(), "text": choice.text})
        return [*blocks, *({**tool_block(call.id, call.name), "input": _input(call)} for call in choice.tool_calls)]


def message(message_id: str, model: str | None, usage: Usage) -> Body:
    """A message that has nothing yet."""
    return {
        "id": message_id,
        "type": "message",
        "role": "assistant",
        "model": model or "",
        "content": [],
        "stop_reason": None,
        "stop_sequence": None,
        "usage": usage_body(usage),
    }


def usage_body(usage: Usage) -> Body:
    """The prompt's tokens that the prefix cache had are not among `input_tokens`."""
    return {
        "input_tokens": usage.prompt_tokens - usage.cached_tokens,
        "cache_creation_input_tokens": 0,
        "cache_read_input_tokens": usage.cached_tokens,
        "output_tokens": usage.completion_tokens,
        "output_tokens_details": {"thinking_tokens": usage.reasoning_tokens},
    }


def text_block() -> Body:
    """An empty one, as the next two."""
    return {"type": "text", "text": ""}


def thinking_block() -> Body:
    return {"type": "thinking", "thinking": "", "signature": ""}


def tool_block(call_id: str, name: str) -> Body:
    return {"type": "tool_use", "id": call_id, "name": name, "input": {}}


def _input(call: ToolCall) -> Body:
    """Arguments that were cut off are no JSON: nothing is known then."""
    try:
        found: Body = msgspec.json.decode(call.arguments, type=Body)
    except (msgspec.DecodeError, RecursionError):
        return {}
    return found
