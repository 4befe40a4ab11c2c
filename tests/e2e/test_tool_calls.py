"""Calls of functions over HTTP, by the real client and the built-in model, which knows nothing of them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from openai import pydantic_function_tool
from pydantic import BaseModel, Field

from tests.e2e.service import Service, running

MODEL = "smollm2-135m-instruct"
TOOLS: Any = [
    {
        "type": "function",
        "function": {
            "name": "get_weather",
            "description": "Current weather of a city",
            "parameters": {
                "type": "object",
                "properties": {
                    "city": {"type": "string", "maxLength": 30},
                    "unit": {"enum": ["celsius", "fahrenheit"]},
                },
                "required": ["city", "unit"],
            },
        },
    },
    {"type": "function", "function": {"name": "get_time", "description": "The time of day"}},
]
WEATHER: Any = [{"role": "user", "content": "What is the weather in Paris?"}]
ASKED: dict[str, Any] = {"model": MODEL, "tools": TOOLS, "temperature": 0, "max_tokens": 120}


def check_calls(calls: Any, names: set[str]) -> None:
    assert calls
    for call in calls:
        assert call.function.name in names
        arguments = json.loads(call.function.arguments)
        assert set(arguments) == ({"city", "unit"} if call.function.name == "get_weather" else set())
        assert arguments.get("unit", "celsius") in ("celsius", "fahrenheit")


@pytest.mark.parametrize("temperature", [0, 1.5])
def test_required_is_guaranteed(builtin_service: Service, temperature: float) -> None:
    client = builtin_service.openai()
    asked = {**ASKED, "temperature": temperature, "n": 4, "seed": 3, "parallel_tool_calls": False}
    completion = client.chat.completions.create(messages=WEATHER, tool_choice="required", **asked)
    assert len(completion.choices) == 4
    for choice in completion.choices:
        assert (choice.finish_reason, choice.message.content) == ("tool_calls", None)
        assert len(choice.message.tool_calls or ()) == 1
        check_calls(choice.message.tool_calls, {"get_weather", "get_time"})


@pytest.mark.parametrize("name", ["get_weather", "get_time"])
def test_a_named_function_is_called_once(builtin_service: Service, name: str) -> None:
    choice: Any = {"type": "function", "function": {"name": name}}
    completion = builtin_service.openai().chat.completions.create(messages=WEATHER, tool_choice=choice, **ASKED)
    calls = completion.choices[0].message.tool_calls
    assert calls is not None
    assert len(calls) == 1
    check_calls(calls, {name})


def test_streamed_calls_are_those_of_the_whole_answer(builtin_service: Service) -> None:
    client = builtin_service.openai()
    whole = client.chat.completions.create(messages=WEATHER, tool_choice="required", **ASKED).choices[0]
    with client.chat.completions.stream(messages=WEATHER, tool_choice="required", **ASKED) as stream:
        events = [event for event in stream if event.type == "tool_calls.function.arguments.delta"]
        final = stream.get_final_completion().choices[0]
    assert final.finish_reason == whole.finish_reason == "tool_calls"
    assert len(events) > 3
    found = [
        [(call.function.name, call.function.arguments) for call in one.message.tool_calls or ()]
        for one in (whole, final)
    ]
    assert found[0] == found[1] != []


def test_beams_call_too(builtin_service: Service) -> None:
    beams = {"use_beam_search": True, "beam_width": 3}
    completion = builtin_service.openai().chat.completions.create(
        messages=WEATHER, tool_choice="required", extra_body=beams, **{**ASKED, "parallel_tool_calls": False}
    )
    check_calls(completion.choices[0].message.tool_calls, {"get_weather", "get_time"})


class Painter(BaseModel):
    """Tell of a painter."""

    name: str = Field(max_length=20)
    born: int = Field(ge=1200, le=2000)


def test_parsed_arguments(builtin_service: Service) -> None:
    completion = builtin_service.openai().chat.completions.parse(
        model=MODEL,
        messages=[{"role": "user", "content": "Who painted the Mona Lisa?"}],
        tools=[pydantic_function_tool(Painter)],
        tool_choice="required",
        parallel_tool_calls=False,
        temperature=0,
    )
    calls = completion.choices[0].message.tool_calls
    assert calls is not None
    assert isinstance(calls[0].function.parsed_arguments, Painter)


def test_auto_may_answer_in_text_and_none_must(builtin_service: Service) -> None:
    hello: Any = [{"role": "user", "content": "Say hello."}]
    client = builtin_service.openai()
    for choice in ("auto", "none"):
        completion = client.chat.completions.create(messages=hello, tool_choice=choice, **ASKED)  # type: ignore[call-overload]
        message = completion.choices[0].message
        assert message.content
        assert message.tool_calls is None


def test_results_go_back(builtin_service: Service) -> None:
    client = builtin_service.openai()
    first = client.chat.completions.create(messages=WEATHER, tool_choice="required", **ASKED).choices[0].message
    assert first.tool_calls
    results: Any = [
        {"role": "tool", "tool_call_id": call.id, "content": "18 degrees and sunny"} for call in first.tool_calls
    ]
    messages = [*WEATHER, first.model_dump(exclude_none=True), *results]
    second = client.chat.completions.create(messages=messages, tool_choice="none", **ASKED)
    assert second.choices[0].message.content
    prompt = builtin_service.http.post("/apply-template", json={"messages": messages}).json()["prompt"]
    assert "18 degrees and sunny" in prompt
    assert '"name": "get_weather"' in prompt


def test_calls_or_json(builtin_service: Service) -> None:
    schema = {"type": "object", "properties": {"a": {"enum": [1, 2]}}, "required": ["a"], "additionalProperties": False}
    form: Any = {"type": "json_schema", "json_schema": {"name": "a", "schema": schema}}
    completion = builtin_service.openai().chat.completions.create(messages=WEATHER, response_format=form, **ASKED)
    message = completion.choices[0].message
    if message.tool_calls:
        check_calls(message.tool_calls, {"get_weather", "get_time"})
    else:
        assert json.loads(message.content or "")["a"] in (1, 2)


def test_what_the_prompt_has(builtin_service: Service) -> None:
    body = {"messages": WEATHER, "tools": TOOLS}
    prompt = builtin_service.http.post("/apply-template", json=body).json()["prompt"]
    counted = builtin_service.http.post("/v1/chat/completions/input_tokens", json=body).json()
    tokens = builtin_service.http.post("/tokenize", json=body).json()["tokens"]
    completion = builtin_service.openai().chat.completions.create(messages=WEATHER, **{**ASKED, "max_tokens": 1})
    assert "Current weather of a city" in prompt
    assert completion.usage is not None
    assert counted["input_tokens"] == len(tokens) == completion.usage.prompt_tokens
    assert builtin_service.http.post("/detokenize", json={"tokens": tokens}).json()["prompt"] == prompt


def test_a_gap_that_the_model_cannot_fill(builtin_service: Service) -> None:
    response = builtin_service.http.post("/v1/completions", json={"prompt": "def f(", "suffix": "return 1"})
    assert (response.status_code, response.json()["error"]["param"]) == (400, "suffix")


# -- another template, and another format

THINKING = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if tools %}<tool_call> is how you call {{ tools | tojson }}{% endif %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% if think %}<think>\n{% endif %}{% endif %}"
    "{# ends with </think> #}"
)


@pytest.fixture(scope="module")
def thinking_service(tmp_path_factory: pytest.TempPathFactory, builtin_folder: Path) -> Iterator[Service]:
    folder = tmp_path_factory.mktemp("thinking")
    (folder / "template.jinja").write_text(THINKING)
    arguments = ["--kv-cache-memory", "100MB", "--chat-template", str(folder / "template.jinja")]
    with running(Service(folder, arguments)) as service:
        yield service


SHORT_THOUGHTS: Any = [
    {"role": "user", "content": "What is the weather in Rome?"},
    {"role": "assistant", "content": "<think>\nRome.\n</think>\n\nI call."},
    {"role": "user", "content": "What is the weather in Berlin?"},
    {"role": "assistant", "content": "<think>\nBerlin.\n</think>\n\nI call."},
    *WEATHER,
]
"""Examples of an end: by itself this model never comes to one."""


def think(service: Service, **fields: Any) -> httpx.Response:
    asked = {"messages": SHORT_THOUGHTS, "temperature": 0, "max_tokens": 80, "chat_template_kwargs": {"think": True}}
    return service.chat(**{**asked, **fields})


def test_an_operators_template(thinking_service: Service) -> None:
    body = {"messages": "hi", "chat_template_kwargs": {"think": True}}
    prompt = thinking_service.http.post("/apply-template", json=body).json()["prompt"]
    assert prompt == "<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n<think>\n"
    refused = think(thinking_service, chat_template_kwargs={"mood": 1})
    assert (refused.status_code, refused.json()["error"]["param"]) == (400, "chat_template_kwargs")


def test_reasoning_is_split_off(thinking_service: Service) -> None:
    body = think(thinking_service).json()
    message = body["choices"][0]["message"]
    assert message["reasoning_content"] == message["reasoning"] != ""
    assert message["content"] != ""
    assert "think>" not in message["reasoning"] + message["content"]
    reasoning_tokens = body["usage"]["completion_tokens_details"]["reasoning_tokens"]
    assert 0 < reasoning_tokens < body["usage"]["completion_tokens"]
    whole = think(thinking_service, separate_reasoning=False).json()["choices"][0]["message"]
    assert whole["content"].startswith(f"{message['reasoning']}\n</think>")
    assert "reasoning" not in whole


@pytest.mark.parametrize("stream", [False, True])
def test_hermes_calls_behind_reasoning(thinking_service: Service, stream: bool) -> None:
    response = think(thinking_service, tools=TOOLS, tool_choice="required", stream=stream)
    assert response.status_code == 200
    if stream:
        chunks = [json.loads(line[6:]) for line in response.text.splitlines() if line.startswith("data: {")]
        deltas = [chunk["choices"][0]["delta"] for chunk in chunks]
    else:
        deltas = [response.json()["choices"][0]["message"]]
    assert "".join(delta.get("content") or "" for delta in deltas) == ""
    assert "".join(delta.get("reasoning_content", "") for delta in deltas) != ""
    calls = [call["function"] for delta in deltas for call in delta.get("tool_calls", ())]
    names = [call["name"] for call in calls if "name" in call]
    assert names
    assert set(names) <= {"get_weather", "get_time"}


def test_json_behind_reasoning(thinking_service: Service) -> None:
    schema = {"type": "object", "properties": {"a": {"enum": [1, 2]}}, "required": ["a"], "additionalProperties": False}
    form = {"type": "json_schema", "json_schema": {"name": "a", "schema": schema}}
    message = think(thinking_service, response_format=form).json()["choices"][0]["message"]
    assert message["reasoning"]
    assert json.loads(message["content"])["a"] in (1, 2)
