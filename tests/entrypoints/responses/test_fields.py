"""What the engine is asked for, field by field."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from tests.entrypoints.fake_dispatch_engine import FakeDispatchEngine
from tests.entrypoints.responses.event_stream import URL
from vfastml.engine.dispatch_requests import Constraint, TemplateOptions, TextGenerationReq, ToolUse

FLAT: dict[str, Any] = {"type": "function", "name": "f", "description": "d", "parameters": {"type": "object"}}
NESTED: dict[str, Any] = {
    "type": "function",
    "function": {"name": "f", "description": "d", "parameters": {"type": "object"}},
}
OTHER: dict[str, Any] = {"type": "function", "name": "g", "strict": True}
OTHER_NESTED: dict[str, Any] = {"type": "function", "function": {"name": "g", "strict": True}}
ALLOWED: dict[str, Any] = {"type": "allowed_tools", "mode": "required", "tools": [{"type": "function", "name": "g"}]}


async def asked(client: httpx.AsyncClient, engine: FakeDispatchEngine, **fields: Any) -> TextGenerationReq:
    response = await client.post(URL, json={"input": "hi", **fields})
    assert response.status_code == 200, response.text
    request = engine.requests[-1]
    assert isinstance(request, TextGenerationReq)
    return request


SAMPLING: list[tuple[str, Any, str, Any]] = [
    ("max_output_tokens", 7, "max_tokens", 7),
    ("temperature", 0.5, "temperature", 0.5),
    ("top_p", 0.9, "top_p", 0.9),
    ("top_k", 5, "top_k", 5),
    ("seed", 3, "seed", 3),
    ("stop", "END", "stop", ("END",)),
    ("frequency_penalty", 1, "frequency_penalty", 1.0),
    ("top_logprobs", 2, "logprobs", 2),
    ("include", ["message.output_text.logprobs"], "logprobs", 0),
    ("include", ["reasoning.encrypted_content"], "logprobs", None),
    ("top_logprobs", 0, "logprobs", None),
]


@pytest.mark.parametrize(("name", "value", "parameter", "expected"), SAMPLING)
async def test_sampling(
    client: httpx.AsyncClient, engine: FakeDispatchEngine, name: str, value: Any, parameter: str, expected: Any
) -> None:
    assert getattr((await asked(client, engine, **{name: value})).sampling, parameter) == expected


WORK: list[tuple[dict[str, Any], str, Any]] = [
    ({}, "n", 1),
    ({}, "stream", False),
    ({"stream": True}, "stream", True),
    ({"background": True}, "stream", True),
    ({"top_logprobs": 1}, "stream", True),
    ({"deadline_s": 5}, "deadline_s", 5.0),
    ({"priority": -3}, "priority", -3),
    ({"cache_salt": "s"}, "cache_salt", "s"),
    ({"model": "tiny"}, "model_uri", "tiny"),
    ({"truncation": "auto"}, "truncate_prompt_tokens", -1),
    ({"truncation": "disabled"}, "truncate_prompt_tokens", None),
    ({}, "splits_reasoning", True),
    ({}, "template", TemplateOptions()),
    ({"reasoning": {"effort": "low", "summary": "auto"}}, "template", TemplateOptions(reasoning_effort="low")),
    ({"reasoning_effort": "low", "reasoning": {}}, "template", TemplateOptions(reasoning_effort="low")),
    ({"chat_template_kwargs": {"a": 1}}, "template", TemplateOptions({"a": 1})),
    ({"text": {}}, "constraint", None),
    ({"text": {"format": {"type": "text"}, "verbosity": "low"}}, "constraint", None),
    ({"text": {"format": {"type": "json_object"}}}, "constraint", Constraint("json_object")),
    (
        {"text": {"format": {"type": "json_schema", "name": "n", "schema": {"type": "object"}}}},
        "constraint",
        Constraint("json_schema", '{"type":"object"}'),
    ),
    ({"structured_outputs": {"regex": "a+"}}, "constraint", Constraint("regex", "a+")),
    ({"tools": []}, "tool_use", None),
    ({"tools": [FLAT]}, "tool_use", ToolUse([NESTED])),
    ({"tools": [FLAT], "tool_choice": "none"}, "tool_use", ToolUse([NESTED], "none")),
    ({"tools": [FLAT], "tool_choice": "required"}, "tool_use", ToolUse([NESTED], "required")),
    ({"tools": [FLAT], "parallel_tool_calls": False}, "tool_use", ToolUse([NESTED], parallel=False)),
    (
        {"tools": [FLAT, OTHER], "tool_choice": {"type": "function", "name": "g"}},
        "tool_use",
        ToolUse([OTHER_NESTED], "required", "g"),
    ),
    ({"tools": [FLAT, OTHER], "tool_choice": ALLOWED}, "tool_use", ToolUse([OTHER_NESTED], "required")),
]


@pytest.mark.parametrize(("fields", "name", "expected"), WORK)
async def test_work(
    client: httpx.AsyncClient, engine: FakeDispatchEngine, fields: dict[str, Any], name: str, expected: Any
) -> None:
    assert getattr(await asked(client, engine, **fields), name) == expected


async def test_beams(client: httpx.AsyncClient, engine: FakeDispatchEngine) -> None:
    beams = (await asked(client, engine, use_beam_search=True, beam_width=3)).beams
    assert beams is not None
    assert beams.width == 3


REFUSED: list[tuple[dict[str, Any], str, bool]] = [
    ({"conversation": "conv_1"}, "conversation", True),
    ({"prompt": {"id": "pmpt_1"}}, "prompt", True),
    ({"context_management": [{"type": "compaction"}]}, "context_management", True),
    ({"max_tokens": 5}, "max_tokens", True),
    ({"n": 2}, "n", True),
    ({"response_format": {"type": "json_object"}}, "response_format", True),
    ({"tools": [{"type": "web_search"}]}, "tools", True),
    ({"tools": [{"type": "custom", "name": "f"}]}, "tools", True),
    ({"tools": [FLAT], "tool_choice": {"type": "web_search"}}, "tool_choice", True),
    ({"tools": [{"type": "function"}]}, "tools", False),
    ({"tools": [NESTED]}, "tools", False),
    ({"tools": ["f"]}, "tools", False),
    ({"tools": [FLAT], "tool_choice": {"type": "function", "name": "h"}}, "tool_choice", False),
    ({"tools": [FLAT], "tool_choice": {"type": "function"}}, "tool_choice", False),
    ({"tools": [FLAT], "tool_choice": {**ALLOWED, "mode": "any"}}, "tool_choice", False),
    ({"tools": [FLAT], "tool_choice": {**ALLOWED, "tools": [5]}}, "tool_choice", False),
    ({"tools": [FLAT], "tool_choice": {**ALLOWED, "tools": None}}, "tool_choice", False),
    ({"tool_choice": "required"}, "tool_choice", False),
    ({"text": {"format": {"type": "json_schema", "name": "n"}}}, "text.format.schema", False),
    ({"text": {"format": {"type": "xml"}}}, "text.format.type", False),
    ({"text": "json"}, "text", False),
    ({"include": ["everything"]}, "include[0]", False),
    ({"reasoning": {"effort": 5}}, "reasoning.effort", False),
    ({"truncation": "some"}, "truncation", False),
    ({"max_output_tokens": 0}, "max_output_tokens", False),
    ({"top_logprobs": 21}, "top_logprobs", False),
    ({"background": True, "store": False}, "background", False),
    ({"previous_response_id": "resp_1"}, "previous_response_id", False),
    ({"metadata": {str(number): "" for number in range(17)}}, "metadata", False),
    ({"metadata": {"a": 5}}, "metadata.a", False),
    ({"metadata": {"a": "x" * 513}}, "metadata.a", False),
]


@pytest.mark.parametrize(("fields", "param", "is_unsupported"), REFUSED)
async def test_refused(
    client: httpx.AsyncClient, engine: FakeDispatchEngine, fields: dict[str, Any], param: str, is_unsupported: bool
) -> None:
    response = await client.post(URL, json={"input": "hi", **fields})
    error = response.json()["error"]
    assert (response.status_code, error["param"]) == (400, param)
    assert (error["code"] == "unsupported_parameter") == is_unsupported
    assert engine.requests == []


@pytest.mark.parametrize(
    ("fields", "foreign"),
    [({"min_tokens": 9, "max_output_tokens": 5}, "'max_tokens'"), ({"use_beam_search": True}, "'n'")],
)
async def test_no_error_names_a_field_that_is_refused_here(
    client: httpx.AsyncClient, fields: dict[str, Any], foreign: str
) -> None:
    response = await client.post(URL, json={"input": "hi", **fields})
    assert response.status_code == 400
    assert foreign not in response.json()["error"]["message"]


@pytest.mark.rule("S5")
async def test_names_of_metadata_are_bounded(client: httpx.AsyncClient) -> None:
    for length, status in ((64, 200), (65, 400)):
        response = await client.post(URL, json={"input": "hi", "metadata": {"x" * length: "y"}})
        assert response.status_code == status


async def test_what_clients_send_to_openai_is_ignored(client: httpx.AsyncClient, engine: FakeDispatchEngine) -> None:
    await asked(
        client,
        engine,
        service_tier="auto",
        safety_identifier="me",
        prompt_cache_key="k",
        stream_options={"include_obfuscation": False},
        reasoning={"effort": None, "summary": "auto"},
        include=[],
        tools=None,
        text=None,
    )


@pytest.mark.rule("S4")
@pytest.mark.parametrize(
    "fields",
    [
        '"tools":[{"type":"function","name":"f","parameters":DEEP}]',
        '"text":{"format":{"type":"json_schema","name":"n","schema":DEEP}}',
        '"tools":[{"type":"function","name":"f"}],"tool_choice":{"type":"function","name":"f","more":DEEP}',
    ],
)
async def test_what_is_nested_too_deep_to_be_repeated_is_refused(client: httpx.AsyncClient, fields: str) -> None:
    statuses = []
    for depth in range(900, 1000):
        deep = '{"a":' * depth + "1" + "}" * depth
        response = await client.post(URL, content='{"input":"hi",' + fields.replace("DEEP", deep) + "}")
        statuses.append(response.status_code)
    assert set(statuses) <= {200, 400}
    assert statuses[-1] == 400
