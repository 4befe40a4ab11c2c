"""Every honoured field is seen in the request that reaches the engine; every bound is enforced by name."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from tests.entrypoints.fake_dispatch_engine import FakeDispatchEngine
from vfastml.engine.dispatch_requests import BeamSearch, Constraint, TextGenerationReq
from vfastml.engine.repetition_detection import RepetitionDetection

HI = [{"role": "user", "content": "hi"}]


async def chat(client: httpx.AsyncClient, **fields: Any) -> httpx.Response:
    return await client.post("/v1/chat/completions", json={"messages": HI, **fields})


async def complete(client: httpx.AsyncClient, **fields: Any) -> httpx.Response:
    return await client.post("/v1/completions", json={"prompt": "hi", **fields})


def only_request(engine: FakeDispatchEngine) -> TextGenerationReq:
    (request,) = engine.requests
    assert isinstance(request, TextGenerationReq)
    return request


@pytest.mark.parametrize("send", [chat, complete])
@pytest.mark.parametrize(
    ("sent", "name", "received"),
    [
        ({"max_tokens": 7}, "max_tokens", 7),
        ({"max_completion_tokens": 7}, "max_tokens", 7),
        ({"max_tokens": 7, "max_completion_tokens": 5}, "max_tokens", 5),
        ({"max_tokens": 5, "max_completion_tokens": 7}, "max_tokens", 5),
        ({"min_tokens": 3}, "min_tokens", 3),
        ({"temperature": 0}, "temperature", 0.0),
        ({"temperature": 2}, "temperature", 2.0),
        ({"top_p": 0.25}, "top_p", 0.25),
        ({"top_k": 40}, "top_k", 40),
        ({"top_k": 0}, "top_k", 0),
        ({"top_k": -1}, "top_k", 0),
        ({"seed": -(2**63)}, "seed", -(2**63)),
        ({"seed": 2**63 - 1}, "seed", 2**63 - 1),
        ({"stop": "END"}, "stop", ("END",)),
        ({"stop": ["a", "b"]}, "stop", ("a", "b")),
        ({"stop": []}, "stop", ()),
        ({"ignore_eos": True}, "ignore_eos", True),
        ({"repetition_penalty": 1}, "repetition_penalty", 1.0),
        ({"repetition_penalty": 2}, "repetition_penalty", 2.0),
        ({"repetition_penalty": None}, "repetition_penalty", None),
        ({"logit_bias": {"50256": -100, "0": 0.5}}, "logit_bias", {50256: -100.0, 0: 0.5}),
        ({"logit_bias": {str(token): 100 for token in range(300)}}, "logit_bias", dict.fromkeys(range(300), 100.0)),
        ({"logit_bias": {}}, "logit_bias", {}),
        ({"logit_bias": None}, "logit_bias", None),
        ({"min_p": 0.1}, "min_p", 0.1),
        ({"typical_p": 1}, "typical_p", 1.0),
        ({"frequency_penalty": -2}, "frequency_penalty", -2.0),
        ({"presence_penalty": 2}, "presence_penalty", 2.0),
        ({"allowed_token_ids": [3, 5]}, "allowed_token_ids", (3, 5)),
        ({"allowed_token_ids": []}, "allowed_token_ids", None),
        ({"bad_words": ["a", "b c"]}, "bad_words", ("a", "b c")),
        ({"stop_token_ids": [2]}, "stop_token_ids", (2,)),
        ({"include_stop_str_in_output": True}, "include_stop_str_in_output", True),
        ({"skip_special_tokens": False}, "skip_special_tokens", False),
        ({"prompt_logprobs": 0}, "prompt_logprobs", 0),
        ({"prompt_logprobs": False}, "prompt_logprobs", None),
        ({"repetition_detection": {}}, "repetition_detection", None),
        ({"repetition_detection": {"max_pattern_size": 8}}, "repetition_detection", RepetitionDetection(8)),
        ({}, "logprobs", None),
    ],
)
async def test_sampling_fields_reach_the_engine(
    client: httpx.AsyncClient, engine: FakeDispatchEngine, send: Any, sent: dict[str, Any], name: str, received: Any
) -> None:
    assert (await send(client, **sent)).status_code == 200
    assert getattr(only_request(engine).sampling, name) == received


@pytest.mark.parametrize("send", [chat, complete])
@pytest.mark.parametrize(
    ("sent", "name", "received"),
    [
        ({"model": "tiny"}, "model_uri", "tiny"),
        ({}, "model_uri", None),
        ({"n": 3}, "n", 3),
        ({"n": 1}, "n", 1),
        ({"n": None}, "n", None),
        ({}, "n", None),
        ({"stream": True}, "stream", True),
        ({"stream": False}, "stream", False),
        ({"stream": None}, "stream", False),
        ({"return_token_ids": True}, "return_token_ids", True),
        ({"cache_salt": "mine"}, "cache_salt", "mine"),
        ({"priority": -3}, "priority", -3),
        ({"truncate_prompt_tokens": -1}, "truncate_prompt_tokens", -1),
        ({"n": 2, "best_of": 4}, "best_of", 4),
        ({}, "beams", None),
        ({}, "constraint", None),
        ({"response_format": {"type": "text"}}, "constraint", None),
        ({"response_format": {}, "structured_outputs": {}, "guided_json": {}}, "constraint", None),
        ({"response_format": {"type": "json_object"}}, "constraint", Constraint("json_object")),
        (
            {"response_format": {"type": "json_schema", "json_schema": {"name": "n", "schema": {"type": "null"}}}},
            "constraint",
            Constraint("json_schema", '{"type":"null"}'),
        ),
        ({"structured_outputs": {"json": '{"é": 1}'}}, "constraint", Constraint("json_schema", '{"é": 1}')),
        ({"structured_outputs": {"json": {"enum": ["é"]}}}, "constraint", Constraint("json_schema", '{"enum":["é"]}')),
        ({"structured_outputs": {"regex": "a+"}}, "constraint", Constraint("regex", "a+")),
        ({"structured_outputs": {"choice": ["a", "b"]}}, "constraint", Constraint("choice", '["a","b"]')),
        ({"structured_outputs": {"grammar": "g"}}, "constraint", Constraint("grammar", "g")),
        ({"structured_outputs": {"json_object": True}}, "constraint", Constraint("json_object")),
        ({"guided_choice": ["a"]}, "constraint", Constraint("choice", '["a"]')),
        ({"guided_regex": "a"}, "constraint", Constraint("regex", "a")),
        ({"guided_json": {"enum": [1]}}, "constraint", Constraint("json_schema", '{"enum":[1]}')),
        ({"guided_grammar": "g"}, "constraint", Constraint("grammar", "g")),
        (
            {"response_format": {"type": "structural_tag", "structures": [{"begin": "<"}], "triggers": ["<"]}},
            "constraint",
            Constraint("structural_tag", '{"structures":[{"begin":"<"}],"triggers":["<"]}'),
        ),
        ({"use_beam_search": False, "beam_width": 1, "length_penalty": 1}, "beams", None),
        ({"use_beam_search": True, "n": 2}, "beams", BeamSearch(2)),
        ({"use_beam_search": True, "beam_width": 4, "early_stopping": "never"}, "beams", BeamSearch(4, 1.0, "never")),
        (
            {"use_beam_search": True, "beam_width": 4, "num_beam_groups": 2, "diversity_penalty": 0.5},
            "beams",
            BeamSearch(4, groups=2, diversity_penalty=0.5),
        ),
    ],
)
async def test_other_fields_reach_the_engine(
    client: httpx.AsyncClient, engine: FakeDispatchEngine, send: Any, sent: dict[str, Any], name: str, received: Any
) -> None:
    assert (await send(client, **sent)).status_code == 200
    assert getattr(only_request(engine), name) == received


@pytest.mark.parametrize(
    ("send", "sent", "generated", "of_prompt"),
    [
        (chat, {"logprobs": True}, 0, None),
        (chat, {"logprobs": True, "top_logprobs": 5}, 5, None),
        (chat, {"logprobs": False, "top_logprobs": 0}, None, None),
        (complete, {"logprobs": 0}, 0, None),
        (complete, {"logprobs": 20, "echo": True}, 20, 20),
        (complete, {"logprobs": 3, "echo": True, "prompt_logprobs": 1, "max_tokens": 0}, 3, 1),
        (complete, {"logprobs": False, "echo": True}, None, None),
    ],
)
async def test_logprobs_reach_the_engine(
    client: httpx.AsyncClient,
    engine: FakeDispatchEngine,
    send: Any,
    sent: dict[str, Any],
    generated: int | None,
    of_prompt: int | None,
) -> None:
    assert (await send(client, **sent)).status_code == 200
    sampling = only_request(engine).sampling
    assert (sampling.logprobs, sampling.prompt_logprobs) == (generated, of_prompt)


@pytest.mark.parametrize(
    ("send", "sent", "param"),
    [
        (chat, {"top_logprobs": 2}, "top_logprobs"),
        (chat, {"stream": True, "prompt_logprobs": 1}, "prompt_logprobs"),
        (complete, {"stream": True, "best_of": 2}, "best_of"),
        (complete, {"beam_width": 2}, "beam_width"),
        (chat, {"guided_regex": "a", "response_format": {"type": "json_object"}}, "structured_outputs"),
        (chat, {"structured_outputs": {"regex": "a", "choice": ["a"]}}, "structured_outputs"),
        (chat, {"response_format": {"type": "json_schema"}}, "response_format"),
        (chat, {"response_format": {"type": "xml"}}, "response_format.type"),
        (chat, {"structured_outputs": {"regx": "a"}}, "structured_outputs.regx"),
        (complete, {"length_penalty": 0.5}, "length_penalty"),
        (complete, {"early_stopping": True}, "early_stopping"),
        (complete, {"use_beam_search": True}, "beam_width"),
        (complete, {"repetition_detection": {"max_pattern_size": 8, "min_count": 1}}, "repetition_detection"),
    ],
)
async def test_fields_that_do_not_go_together_are_refused_by_name(
    client: httpx.AsyncClient, engine: FakeDispatchEngine, send: Any, sent: dict[str, Any], param: str
) -> None:
    response = await send(client, **sent)
    assert (response.status_code, response.json()["error"]["param"]) == (400, param)
    assert engine.requests == []


async def test_chat_leaves_max_tokens_to_the_room_left(client: httpx.AsyncClient, engine: FakeDispatchEngine) -> None:
    await chat(client, max_tokens=None)
    assert only_request(engine).sampling.max_tokens is None


@pytest.mark.parametrize("fields", [{}, {"max_tokens": None}])
async def test_completions_default_to_16_tokens(
    client: httpx.AsyncClient, engine: FakeDispatchEngine, fields: dict[str, Any]
) -> None:
    await complete(client, **fields)
    assert only_request(engine).sampling.max_tokens == 16


async def test_echo_reaches_the_engine(client: httpx.AsyncClient, engine: FakeDispatchEngine) -> None:
    await complete(client, echo=True)
    assert only_request(engine).echo is True


@pytest.mark.parametrize(
    ("prompt", "expected"),
    [
        ("hi", [("hi", None)]),
        (["a", "b"], [("a", None), ("b", None)]),
        ([1, 2, 3], [(None, [1, 2, 3])]),
        ([[1, 2], [3]], [(None, [1, 2]), (None, [3])]),
    ],
)
async def test_one_request_for_each_prompt(
    client: httpx.AsyncClient, engine: FakeDispatchEngine, prompt: Any, expected: list[Any]
) -> None:
    response = await complete(client, prompt=prompt)
    assert response.status_code == 200
    sent = [r for r in engine.requests if isinstance(r, TextGenerationReq)]
    assert [(r.prompt, r.prompt_token_ids) for r in sent] == expected
    assert [r.request_id for r in sent] == [f"{response.json()['id']}-{i}" for i in range(len(expected))]


MESSAGES: list[dict[str, Any]] = [
    {"role": "system", "content": [{"type": "text", "text": "Be brief."}]},
    {"role": "developer", "content": "Very brief."},
    {"role": "user", "content": "Weather?", "name": "ann"},
    {"role": "assistant", "content": None, "tool_calls": [{"id": "1", "function": {"name": "f", "arguments": "{}"}}]},
    {"role": "assistant", "tool_calls": []},
    {"role": "tool", "tool_call_id": "1", "content": [{"type": "text", "text": "sunny"}]},
    {"role": "assistant", "content": [{"type": "refusal", "refusal": "no"}], "reasoning_content": "hm"},
    {"role": "function", "name": "f", "content": ""},
]


async def test_messages_reach_the_engine_as_they_came(client: httpx.AsyncClient, engine: FakeDispatchEngine) -> None:
    assert (await chat(client, messages=MESSAGES)).status_code == 200
    assert only_request(engine).messages == MESSAGES


async def test_a_string_is_one_user_message(client: httpx.AsyncClient, engine: FakeDispatchEngine) -> None:
    await chat(client, messages="hi")
    assert only_request(engine).messages == HI


OUT_OF_RANGE: list[tuple[str, Any]] = [
    ("max_tokens", -1),
    ("max_tokens", 1.0),
    ("max_tokens", "5"),
    ("max_tokens", True),
    ("max_tokens", 2**31),
    ("max_completion_tokens", 0),
    ("min_tokens", -1),
    ("temperature", -0.1),
    ("temperature", 2.1),
    ("temperature", "1"),
    ("temperature", True),
    ("top_p", 0),
    ("top_p", 1.01),
    ("top_k", -2),
    ("top_k", 1.5),
    ("seed", 2**63),
    ("seed", -(2**63) - 1),
    ("n", 0),
    ("n", 129),
    ("stop", ""),
    ("stop", ["x"] * 17),
    ("stop", "x" * 1025),
    ("stop", [1]),
    ("stop", 5),
    ("ignore_eos", 1),
    ("min_p", 1.1),
    ("typical_p", 0),
    ("frequency_penalty", -2.1),
    ("presence_penalty", 2.1),
    ("allowed_token_ids", [-1]),
    ("bad_words", [""]),
    ("bad_words", ["x"] * 257),
    ("stop_token_ids", [1] * 129),
    ("stop_token_ids", ["1"]),
    ("prompt_logprobs", 21),
    ("best_of", 0),
    ("truncate_prompt_tokens", -2),
    ("priority", 2**31),
    ("beam_width", 0),
    ("length_penalty", 11),
    ("num_beam_groups", 0),
    ("diversity_penalty", -1),
    ("early_stopping", "sometimes"),
    ("repetition_penalty", 0),
    ("repetition_penalty", -1),
    ("repetition_penalty", 2.1),
    ("repetition_penalty", "1.1"),
    ("logit_bias", [1]),
    ("logit_bias", "5"),
    ("logit_bias", {"5": 100.5}),
    ("logit_bias", {"5": -101}),
    ("logit_bias", {"5": "1"}),
    ("logit_bias", {"5": True}),
    ("logit_bias", {"5": None}),
    ("logit_bias", {"-1": 1}),
    ("logit_bias", {"05": 1}),
    ("logit_bias", {"5 ": 1}),
    ("logit_bias", {"5.0": 1}),
    ("logit_bias", {"": 1}),
    ("logit_bias", {"²": 1}),
    ("logit_bias", {"٥": 1}),
    ("logit_bias", {"9" * 5000: 1}),
    ("logit_bias", {str(token): 1 for token in range(301)}),
    ("stream", "true"),
    ("stream_options", []),
    ("stream_options", {"include_usage": "yes"}),
    ("return_token_ids", 0),
    ("cache_salt", 5),
    ("cache_salt", "x" * 513),
    ("model", 5),
    ("model", "x" * 513),
]


@pytest.mark.rule("S5")
@pytest.mark.parametrize("send", [chat, complete])
@pytest.mark.parametrize(("name", "value"), OUT_OF_RANGE)
async def test_out_of_range_is_refused_by_name(
    client: httpx.AsyncClient, engine: FakeDispatchEngine, send: Any, name: str, value: Any
) -> None:
    response = await send(client, **{name: value})
    error = response.json()["error"]
    assert response.status_code == 400
    assert error["type"] == "invalid_request_error"
    assert error["param"].split("[")[0].split(".")[0] == name
    assert engine.requests == []


@pytest.mark.parametrize("send", [chat, complete])
async def test_min_tokens_above_max_tokens(client: httpx.AsyncClient, send: Any) -> None:
    response = await send(client, min_tokens=6, max_tokens=5)
    assert (response.status_code, response.json()["error"]["param"]) == (400, "min_tokens")


@pytest.mark.rule("S5")
@pytest.mark.parametrize(
    "prompt",
    [
        None,
        [],
        [[]],
        5,
        {},
        [None],
        ["a", 1],
        [1, "a"],
        [True],
        [[1], "a"],
        [-1],
        [2**31],
        [1.0],
        ["x"] * 129,
        [[1], []],
    ],
)
async def test_bad_prompts_are_refused(client: httpx.AsyncClient, engine: FakeDispatchEngine, prompt: Any) -> None:
    response = await complete(client, prompt=prompt)
    assert (response.status_code, response.json()["error"]["param"]) == (400, "prompt")
    assert engine.requests == []


@pytest.mark.rule("S5")
async def test_prompts_times_n_is_bounded(client: httpx.AsyncClient, engine: FakeDispatchEngine) -> None:
    assert (await complete(client, prompt=["x"] * 128, n=2)).status_code == 200
    response = await complete(client, prompt=["x"] * 128, n=3)
    assert (response.status_code, response.json()["error"]["param"]) == (400, "n")
    assert len(engine.requests) == 128


@pytest.mark.parametrize(
    ("messages", "param"),
    [
        ([], "messages"),
        (5, "messages"),
        (None, "messages"),
        ([5], "messages[0]"),
        ([{"content": "x"}], "messages[0].role"),
        ([{"role": "robot", "content": "x"}], "messages[0].role"),
        ([*HI, {"role": "user", "content": 5}], "messages[1].content"),
        ([{"role": "user", "content": [5]}], "messages[0].content"),
        ([{"role": "user", "content": [{"text": "x"}]}], "messages[0].content"),
        ([{"role": "user", "content": [{"type": "text"}]}], "messages[0].content"),
        ([{"role": "user", "content": [{"type": "text", "text": 5}]}], "messages[0].content"),
        ([{"role": "user", "content": [{"type": ["text"]}]}], "messages[0].content"),
        ([{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:,"}}]}], "messages"),
        ([{"role": "user", "content": [{"type": "input_audio", "input_audio": {}}]}], "messages"),
        (HI * 4097, "messages"),
        ([{"role": "user", "content": [{"type": "text", "text": "x"}] * 4097}], "messages[0].content"),
    ],
)
async def test_bad_messages_are_refused(
    client: httpx.AsyncClient, engine: FakeDispatchEngine, messages: Any, param: str
) -> None:
    response = await chat(client, messages=messages)
    assert (response.status_code, response.json()["error"]["param"]) == (400, param)
    assert engine.requests == []


@pytest.mark.parametrize(("path", "param"), [("/v1/chat/completions", "messages"), ("/v1/completions", "prompt")])
async def test_the_one_required_field(client: httpx.AsyncClient, path: str, param: str) -> None:
    error = (await client.post(path, json={})).json()["error"]
    assert error["param"] == param
    assert error["message"] == f"Missing required parameter: '{param}'."
