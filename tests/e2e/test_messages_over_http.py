"""Anthropic's Messages API over real HTTP, by the built-in model."""

from __future__ import annotations

import json
from typing import Any

import pytest
from jsonschema_rs import Draft202012Validator

from tests.e2e.service import Service

MODEL = "smollm2-135m-instruct"
QUESTION: list[dict[str, Any]] = [{"role": "user", "content": "What is the capital of France?"}]
SCHEMA = {
    "type": "object",
    "properties": {"city": {"enum": ["Rome", "Paris"]}, "days": {"type": "integer", "minimum": 1, "maximum": 9}},
    "required": ["city", "days"],
    "additionalProperties": False,
}
TOOLS = [
    {"name": "get_weather", "description": "The weather of the next days.", "input_schema": SCHEMA},
    {"name": "get_time", "input_schema": {"type": "object", "properties": {}, "additionalProperties": False}},
]

Body = dict[str, Any]


def asked(**fields: Any) -> Body:
    return {"model": MODEL, "messages": QUESTION, "max_tokens": 60, "temperature": 0, **fields}


def message(service: Service, **fields: Any) -> Body:
    response = service.http.post("/v1/messages", json=asked(**fields))
    assert response.status_code == 200, response.text
    body: Body = response.json()
    return body


def events(service: Service, **fields: Any) -> list[Body]:
    response = service.http.post("/v1/messages", json=asked(**fields, stream=True))
    assert response.status_code == 200, response.text
    return [json.loads(line.removeprefix("data: ")) for line in response.text.splitlines() if line[:6] == "data: "]


def put_together(found: list[Body]) -> Body:
    """The message that a stream's events are."""
    first, *others, last = found
    whole: Body = first["message"]
    assert (first["type"], last) == ("message_start", {"type": "message_stop"})
    written: list[str] = []
    for event in others:
        if event["type"] == "content_block_start":
            whole["content"].append(event["content_block"])
            written.append("")
        elif event["type"] == "content_block_delta":
            assert event["index"] == len(written) - 1
            written[-1] += event["delta"].get("text") or event["delta"].get("partial_json") or ""
        elif event["type"] == "message_delta":
            whole |= event["delta"]
            whole["usage"] |= event["usage"]
    for block, text in zip(whole["content"], written, strict=True):
        block |= {"input": json.loads(text)} if block["type"] == "tool_use" else {"text": text}
    return whole


def prompt_tokens(body: Body) -> int:
    usage = body["usage"]
    return int(usage["input_tokens"]) + int(usage["cache_read_input_tokens"])


def test_the_answer_is_the_chats(builtin_service: Service) -> None:
    body = message(builtin_service)
    chat = builtin_service.chat(model=MODEL, messages=QUESTION, max_tokens=60, temperature=0).json()
    assert "Paris" in body["content"][0]["text"]
    assert body["content"] == [{"type": "text", "text": chat["choices"][0]["message"]["content"]}]
    assert (body["stop_reason"], body["model"]) == ("end_turn", MODEL)
    assert prompt_tokens(body) == chat["usage"]["prompt_tokens"]
    assert body["usage"]["output_tokens"] == chat["usage"]["completion_tokens"]


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"max_tokens": 3},
        {"stop_sequences": ["never said", " of"]},
        {"tools": TOOLS, "tool_choice": {"type": "any"}},
        {"output_config": {"format": {"type": "json_schema", "schema": SCHEMA}}},
    ],
)
def test_a_stream_says_the_same(builtin_service: Service, fields: Body) -> None:
    whole, streamed = message(builtin_service, **fields), put_together(events(builtin_service, **fields))
    for name in ("content", "stop_reason", "stop_sequence", "model"):
        if name == "content" and fields.get("tools"):
            for block in (*whole["content"], *streamed["content"]):
                assert block.pop("id")
        assert streamed[name] == whole[name]
    assert prompt_tokens(streamed) == prompt_tokens(whole)
    assert streamed["usage"]["output_tokens"] == whole["usage"]["output_tokens"]


def test_why_a_text_ends(builtin_service: Service) -> None:
    assert message(builtin_service, max_tokens=3)["stop_reason"] == "max_tokens"
    stopped = message(builtin_service, stop_sequences=[" Paris"])
    assert (stopped["stop_reason"], stopped["stop_sequence"]) == ("stop_sequence", " Paris")
    assert "Paris" not in stopped["content"][0]["text"]


def test_an_answer_that_has_begun_goes_on(builtin_service: Service) -> None:
    begun = [*QUESTION, {"role": "assistant", "content": "The capital of France is"}]
    body = message(builtin_service, messages=begun, max_tokens=3)
    assert body["content"][0]["text"].startswith(" Paris")


@pytest.mark.parametrize(
    ("choice", "names"),
    [({"type": "any"}, {"get_weather", "get_time"}), ({"type": "tool", "name": "get_weather"}, {"get_weather"})],
)
def test_a_tool_that_must_be_used(builtin_service: Service, choice: Body, names: set[str]) -> None:
    for seed_text in ("Will it rain in Rome?", "Tell me a story.", "17"):
        turns = [{"role": "user", "content": seed_text}]
        choice_of_one = {**choice, "disable_parallel_tool_use": True}
        body = message(
            builtin_service, messages=turns, tools=TOOLS, tool_choice=choice_of_one, temperature=1, max_tokens=200
        )
        assert body["stop_reason"] == "tool_use"
        (call,) = [block for block in body["content"] if block["type"] == "tool_use"]
        assert call["name"] in names
        schema = next(tool["input_schema"] for tool in TOOLS if tool["name"] == call["name"])
        Draft202012Validator(schema).validate(call["input"])


def test_the_result_of_a_tool_is_read(builtin_service: Service) -> None:
    turns = [{"role": "user", "content": "Will it rain in Rome?"}]
    called = message(builtin_service, messages=turns, tools=TOOLS, tool_choice={"type": "tool", "name": "get_weather"})[
        "content"
    ]
    call = next(block for block in called if block["type"] == "tool_use")
    result = {"type": "tool_result", "tool_use_id": call["id"], "content": [{"type": "text", "text": "Heavy rain."}]}
    turns += [{"role": "assistant", "content": called}, {"role": "user", "content": [result]}]
    body = message(builtin_service, messages=turns, tools=TOOLS, tool_choice={"type": "none"})
    assert body["stop_reason"] in ("end_turn", "max_tokens")
    assert [block["type"] for block in body["content"]] == ["text"]


def test_json_of_a_schema(builtin_service: Service) -> None:
    wanted = {"format": {"type": "json_schema", "schema": SCHEMA}}
    (block,) = message(builtin_service, output_config=wanted, temperature=1, max_tokens=200)["content"]
    Draft202012Validator(SCHEMA).validate(json.loads(block["text"]))


@pytest.mark.parametrize("fields", [{}, {"system": "Be brief."}, {"tools": TOOLS}])
def test_counted_tokens_are_those_of_the_prompt(builtin_service: Service, fields: Body) -> None:
    counted = builtin_service.http.post("/v1/messages/count_tokens", json={"messages": QUESTION, **fields})
    assert counted.json() == {"input_tokens": prompt_tokens(message(builtin_service, **fields, max_tokens=1))}


def test_no_tokens_read_the_prompt_alone(builtin_service: Service) -> None:
    body = message(builtin_service, max_tokens=0)
    assert (body["content"], body["usage"]["output_tokens"]) == ([], 0)


def test_thinking_may_be_asked_for(builtin_service: Service) -> None:
    """Of a model that does not mark what it thinks."""
    for thinking in ({"type": "enabled", "budget_tokens": 1024}, {"type": "adaptive"}, {"type": "disabled"}):
        body = message(builtin_service, thinking=thinking, output_config={"effort": "low"})
        assert "Paris" in body["content"][0]["text"]


def test_errors(builtin_service: Service) -> None:
    http = builtin_service.http
    unknown = http.post("/v1/messages", json=asked(model="nobody"))
    assert (unknown.status_code, unknown.json()["error"]["type"]) == (404, "not_found_error")
    huge = http.post("/v1/messages", json=asked(messages=[{"role": "user", "content": "word " * 100_000}]))
    assert (huge.status_code, huge.json()["error"]["type"]) == (400, "invalid_request_error")
