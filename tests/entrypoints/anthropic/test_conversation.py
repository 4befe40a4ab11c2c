"""Conversations in blocks as the chat messages that reach the engine."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import httpx
import pytest

from tests.entrypoints.fake_dispatch_engine import FakeDispatchEngine
from vfastml.engine.dispatch_requests import TemplateOptions, TextGenerationReq, TokenizeReq
from vfastml.entrypoints.anthropic.conversation import Turn, chat_messages

Message = dict[str, Any]


def text(words: str) -> Message:
    return {"type": "text", "text": words, "cache_control": {"type": "ephemeral"}}


def said(role: str, content: str) -> Message:
    """A plain chat message."""
    return {"role": role, "content": content}


def user(*blocks: Message | str) -> Message:
    return {"role": "user", "content": [text(block) if isinstance(block, str) else block for block in blocks]}


def assistant(*blocks: Message | str) -> Message:
    return {**user(*blocks), "role": "assistant"}


def called(call_id: str, name: str) -> Message:
    return {"type": "tool_use", "id": call_id, "name": name, "input": {"city": "Rome"}, "caller": {"type": "direct"}}


def result(call_id: str, content: Any = None, **fields: Any) -> Message:
    return {"type": "tool_result", "tool_use_id": call_id, "content": content, **fields}


def as_call(call_id: str, name: str) -> Message:
    return {"id": call_id, "type": "function", "function": {"name": name, "arguments": {"city": "Rome"}}}


THOUGHT = {"type": "thinking", "thinking": "hm", "signature": "xyz"}
REDACTED = {"type": "redacted_thinking", "data": "xyz"}


async def send(client: httpx.AsyncClient, messages: list[Message], **fields: Any) -> httpx.Response:
    return await client.post("/v1/messages", json={"max_tokens": 9, "messages": messages, **fields})


@pytest.mark.parametrize(
    ("system", "messages", "received"),
    [
        (None, [said("user", "hi")], [said("user", "hi")]),
        ("Be brief.", [user("hi")], [said("system", "Be brief."), said("user", "hi")]),
        (
            [text("a"), text("b")],
            [user("hi")],
            [said("system", "a\nb"), said("user", "hi")],
        ),
        ([], [user("a", "b"), user("c")], [said("user", "a\nb\nc")]),
        (None, [user()], [said("user", "")]),
        ("", [user("hi")], [said("user", "hi")]),
        (
            "a",
            [said("system", "b"), user("hi"), said("system", "c"), user("ho")],
            [
                said("system", "a\nb"),
                said("user", "hi"),
                said("system", "c"),
                said("user", "ho"),
            ],
        ),
        (
            None,
            [
                user("Weather?"),
                assistant(THOUGHT, REDACTED, "Let me see.", called("1", "f"), called("2", "g")),
                user(result("1", "sunny"), result("2", [text("12"), text("13")], is_error=True), "Well?"),
                assistant("Fine."),
                user("Thanks."),
            ],
            [
                said("user", "Weather?"),
                {
                    "role": "assistant",
                    "content": "Let me see.",
                    "reasoning_content": "hm",
                    "tool_calls": [as_call("1", "f"), as_call("2", "g")],
                },
                {"role": "tool", "tool_call_id": "1", "content": "sunny", "name": "f"},
                {"role": "tool", "tool_call_id": "2", "content": "Error: 12\n13", "name": "g"},
                said("user", "Well?"),
                said("assistant", "Fine."),
                said("user", "Thanks."),
            ],
        ),
        (
            None,
            [user("a"), assistant(called("1", "f")), user(result("1")), assistant(called("2", "f")), user(result("3"))],
            [
                said("user", "a"),
                {"role": "assistant", "content": "", "tool_calls": [as_call("1", "f")]},
                {"role": "tool", "tool_call_id": "1", "content": "", "name": "f"},
                {"role": "assistant", "content": "", "tool_calls": [as_call("2", "f")]},
                {"role": "tool", "tool_call_id": "3", "content": ""},
            ],
        ),
        (
            None,
            [user("a"), assistant(THOUGHT, "b"), assistant(THOUGHT, "", "c"), user("d")],
            [
                said("user", "a"),
                {"role": "assistant", "content": "b\nc", "reasoning_content": "hm\nhm"},
                said("user", "d"),
            ],
        ),
    ],
)
async def test_messages_reach_the_engine(
    client: httpx.AsyncClient, engine: FakeDispatchEngine, system: Any, messages: list[Message], received: list[Message]
) -> None:
    assert (await send(client, messages, system=system)).status_code == 200
    counting = {"messages": messages, "system": system}
    assert (await client.post("/v1/messages/count_tokens", json=counting)).json() == {"input_tokens": 3}
    for request in engine.requests:
        assert isinstance(request, TextGenerationReq | TokenizeReq)
        assert request.messages == received
        assert request.template == TemplateOptions()


async def test_a_last_message_of_the_assistants_is_gone_on_with(
    client: httpx.AsyncClient, engine: FakeDispatchEngine
) -> None:
    await send(client, [user("a"), assistant("The answer is (")])
    await client.post("/v1/messages/count_tokens", json={"messages": [user("a"), assistant("The answer is (")]})
    for request in engine.requests:
        assert isinstance(request, TextGenerationReq | TokenizeReq)
        assert request.messages == [
            said("user", "a"),
            said("assistant", "The answer is ("),
        ]
        assert request.template == TemplateOptions(add_generation_prompt=False, continue_final_message=True)


@pytest.mark.parametrize("last", [assistant(), assistant(""), assistant(REDACTED)])
async def test_a_last_message_that_says_nothing_is_left_out(
    client: httpx.AsyncClient, engine: FakeDispatchEngine, last: Message
) -> None:
    await send(client, [user("a"), last])
    (request,) = engine.requests
    assert isinstance(request, TextGenerationReq)
    assert (request.messages, request.template) == ([said("user", "a")], TemplateOptions())


@pytest.mark.parametrize("role", ["user", "assistant", "system"])
def test_each_text_is_copied_once_however_many_are_merged(role: str) -> None:
    def joins(num_turns: int) -> int:
        turn = Turn.model_validate({"role": role, "content": [text("a"), text("b")]})
        return calls_of_join(lambda: chat_messages(None, [turn] * num_turns))

    assert joins(500) == joins(5)


def calls_of_join(work: Callable[[], Any]) -> int:
    num_calls = 0

    def count(_: Any, event: str, function: Any) -> None:
        nonlocal num_calls
        num_calls += event == "c_call" and function.__name__ == "join"

    sys.setprofile(count)
    try:
        work()
    finally:
        sys.setprofile(None)
    return num_calls


def of_type(kind: Any, **fields: Any) -> Message:
    return {"type": kind, **fields}


@pytest.mark.parametrize(
    ("messages", "words"),
    [
        (None, "Invalid 'messages'"),
        ([], "Invalid 'messages'"),
        ("hi", "Invalid 'messages'"),
        ([5], "Invalid 'messages[0]'"),
        ([user("a")] * 4097, "Invalid 'messages'"),
        ([{"role": "robot", "content": "x"}], "Invalid 'messages[0].role'"),
        ([{"role": "user"}], "Missing required parameter: 'messages[0].content'"),
        ([user("a"), {"role": "user", "content": 5}], "Invalid 'messages[1].content'"),
        ([user("a"), user("a", of_type("riddle"))], "Invalid 'messages[1].content[1]'"),
        ([user(of_type(["text"]))], "Invalid 'messages[0].content[0]'"),
        ([user(of_type("text"))], "'messages[0].content[0].text.text'"),
        ([user(*["x"] * 4097)], "Invalid 'messages[0].content'"),
        ([user(result("1", [of_type("image")]))], "the type 'image'"),
        ([user(of_type("image", source={}))], "the type 'image'"),
        ([user(of_type("document", source={}))], "the type 'document'"),
        ([assistant(of_type("web_search_tool_result"))], "tools that a server runs"),
        ([user(of_type("tool_result", tool_use_id="1", content=5))], "'messages[0].content[0].tool_result.content'"),
        ([user("a"), assistant(of_type("tool_use", id="1", name="f", input=5))], ".tool_use.input'"),
        ([user("a"), assistant(called("1", "x" * 513))], ".tool_use.name'"),
        ([user("a"), assistant("b", called("1", "f"))], "its 'tool_result' has to come next"),
        ([assistant("")], "nothing to go on with"),
        ([assistant(THOUGHT)], "nothing to go on with"),
        ([assistant(result("1"))], "role 'assistant' cannot have a block of the type 'tool_result'"),
        ([user(called("1", "f"))], "role 'user' cannot have a block of the type 'tool_use'"),
        ([{"role": "system", "content": [THOUGHT]}], "role 'system' cannot have a block of the type 'thinking'"),
    ],
)
async def test_bad_messages_are_refused_by_name(
    client: httpx.AsyncClient, engine: FakeDispatchEngine, messages: Any, words: str
) -> None:
    response = await send(client, messages)
    assert (response.status_code, response.json()["error"]["type"]) == (400, "invalid_request_error")
    assert words in response.json()["error"]["message"]
    assert len(response.content) < 500
    assert engine.requests == []
