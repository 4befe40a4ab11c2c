"""The body of a response that is answered whole."""

from __future__ import annotations

from typing import Any

import httpx
from openai.types.responses import Response

from tests.entrypoints.fake_dispatch_engine import FakeDispatchEngine, fail_with
from tests.entrypoints.responses.event_stream import URL, delta, saying, streamed
from vfastml.engine.dispatch_replies import ToolCallPiece
from vfastml.errors import InvalidRequestError

FUNCTION: dict[str, Any] = {"type": "function", "name": "f", "parameters": {"type": "object"}}

REPEATED: dict[str, Any] = {
    "instructions": "Be short.",
    "max_output_tokens": 7,
    "max_tool_calls": 3,
    "metadata": {"a": "b"},
    "parallel_tool_calls": False,
    "store": False,
    "temperature": 0.5,
    "text": {"format": {"type": "json_schema", "name": "n", "schema": {"type": "object"}, "strict": True}},
    "tool_choice": {"type": "function", "name": "f"},
    "top_logprobs": 2,
    "top_p": 0.9,
    "truncation": "auto",
    "user": "me",
}


async def answer(client: httpx.AsyncClient, **fields: Any) -> dict[str, Any]:
    response = await client.post(URL, json={"input": "hi", **fields})
    assert response.status_code == 200
    body: dict[str, Any] = response.json()
    Response.model_validate(body)
    return body


async def test_text(client: httpx.AsyncClient) -> None:
    body = await answer(client)
    (message,) = body.pop("output")
    assert message.pop("id").startswith("msg_")
    text = {"type": "output_text", "text": "Hello world", "annotations": [], "logprobs": []}
    assert message == {"type": "message", "role": "assistant", "status": "completed", "content": [text]}
    assert body.pop("id").startswith("resp_")
    assert body.pop("created_at") <= body.pop("completed_at")
    assert body.pop("usage") == {
        "input_tokens": 5,
        "input_tokens_details": {"cached_tokens": 2, "cache_write_tokens": 0},
        "output_tokens": 2,
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": 7,
    }
    assert body == {
        "object": "response",
        "status": "completed",
        "model": "tiny",
        "error": None,
        "incomplete_details": None,
        "background": False,
        "instructions": None,
        "max_output_tokens": None,
        "max_tool_calls": None,
        "metadata": {},
        "parallel_tool_calls": True,
        "previous_response_id": None,
        "reasoning": {"effort": None, "summary": None},
        "service_tier": None,
        "store": True,
        "temperature": None,
        "text": {"format": {"type": "text"}},
        "tool_choice": "auto",
        "tools": [],
        "top_logprobs": 0,
        "top_p": None,
        "truncation": "disabled",
        "user": None,
    }


async def test_repeats_what_was_asked_for(client: httpx.AsyncClient) -> None:
    body = await answer(client, tools=[FUNCTION], **REPEATED)
    assert {name: body[name] for name in REPEATED} == REPEATED
    assert body["tools"] == [{**FUNCTION, "description": None, "strict": None}]


async def test_whole_and_streamed_are_the_same(client: httpx.AsyncClient, engine: FakeDispatchEngine) -> None:
    calls = [ToolCallPiece(0, "call_a", "f", '{"x":1}')]
    engine.script = saying([delta("Hi", reasoning="Hm"), delta(tool_calls=calls, finish_reason="tool_calls")])
    whole, *_, last = await answer(client), *await streamed(client)
    assert without_names(whole) == without_names(last["response"])
    assert [item["type"] for item in whole["output"]] == ["reasoning", "message", "function_call"]


def without_names(response: dict[str, Any]) -> dict[str, Any]:
    left_out = ("id", "created_at", "completed_at")
    output = [{**item, "id": ""} for item in response["output"]]
    return {**{key: value for key, value in response.items() if key not in left_out}, "output": output}


async def test_errors_of_the_engine_name_the_fields_of_this_api(
    client: httpx.AsyncClient, engine: FakeDispatchEngine
) -> None:
    named = {
        "messages": "input",
        "max_tokens": "max_output_tokens",
        "truncate_prompt_tokens": "truncation",
        "structured_outputs": "structured_outputs",
        "seed": "seed",
    }
    for stream in (False, True):
        for param, expected in named.items():
            engine.script = fail_with(InvalidRequestError("No.", param=param))
            response = await client.post(URL, json={"input": "hi", "stream": stream})
            assert (response.status_code, response.json()["error"]["param"]) == (400, expected)
    engine.script = fail_with(InvalidRequestError("No.", param="structured_outputs"))
    response = await client.post(URL, json={"input": "hi", "text": {"format": {"type": "json_object"}}})
    assert response.json()["error"]["param"] == "text.format"


async def test_how_long_it_took(client: httpx.AsyncClient) -> None:
    response = await client.post(URL, json={"input": "hi"})
    assert "total;dur=" in response.headers["server-timing"]
    assert "timings" not in response.json()
    for body in (
        await answer(client, return_timings=True),
        (await streamed(client, return_timings=True))[-1]["response"],
    ):
        assert body["timings"]["predicted_n"] == 2
