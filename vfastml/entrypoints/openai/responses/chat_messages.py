"""Items as the messages of a chat: what the model's template is given."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from vfastml.entrypoints.openai.responses.input_items import Item

Message = dict[str, Any]


def chat_messages(items: Iterable[Item], instructions: str | None) -> list[Message]:
    """What a model thought, said and called in one go are items of their own, and one message of the assistant's."""
    messages: list[Message] = [{"role": "system", "content": instructions}] if instructions else []
    for item in items:
        if item["type"] == "function_call_output":
            messages.append({"role": "tool", "tool_call_id": item["call_id"], "content": _content(item["output"])})
        elif item["type"] == "message" and item["role"] != "assistant":
            messages.append({"role": item["role"], "content": _content(item["content"])})
        else:
            _add_to_answer(messages, item)
    return messages


def _add_to_answer(messages: list[Message], item: Item) -> None:
    kind = item["type"]
    if not messages or messages[-1]["role"] != "assistant" or _begins_anew(kind, messages[-1]):
        messages.append({"role": "assistant", "content": ""})
    answer = messages[-1]
    if kind == "reasoning":
        answer["reasoning_content"] = "".join(part["text"] for part in item["content"])
    elif kind == "message":
        answer["content"] = _content(item["content"])
    else:
        function = {"name": item["name"], "arguments": item["arguments"]}
        call = {"id": item["call_id"], "type": "function", "function": function}
        answer.setdefault("tool_calls", []).append(call)


def _begins_anew(kind: str, answer: Message) -> bool:
    """Models think, then speak, then call."""
    if kind == "function_call":
        return False
    has_spoken = bool(answer["content"]) or "tool_calls" in answer
    return has_spoken or (kind == "reasoning" and "reasoning_content" in answer)


def _content(value: str | list[Item]) -> str | list[Message]:
    if isinstance(value, str):
        return value
    texts: list[str] = [part["refusal"] if part["type"] == "refusal" else part["text"] for part in value]
    return texts[0] if len(texts) == 1 else [{"type": "text", "text": text} for text in texts]
