"""What a model is given of an input, and what is refused of one."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from tests.entrypoints.fake_dispatch_engine import FakeDispatchEngine
from tests.entrypoints.responses.event_stream import URL
from vfastml.engine.dispatch_requests import TextGenerationReq
from vfastml.entrypoints.limits import MAX_CONTENT_PARTS, MAX_MESSAGES


def text(kind: str, *texts: str) -> list[dict[str, Any]]:
    return [{"type": kind, "text": one} for one in texts]


USER = {"role": "user", "content": "hi"}
CALL = {"type": "function_call", "call_id": "c1", "name": "f", "arguments": '{"x": 1}'}
OTHER_CALL = {**CALL, "call_id": "c2", "arguments": "{}"}
OUTPUT = {"type": "function_call_output", "call_id": "c1", "output": "5"}
REASONING = {"type": "reasoning", "id": "rs_1", "summary": [], "content": text("reasoning_text", "Hm", "m.")}
ANSWER = {"type": "message", "role": "assistant", "content": text("output_text", "yes"), "status": "completed"}

CALLED = {"id": "c1", "type": "function", "function": {"name": "f", "arguments": '{"x": 1}'}}
CALLED_TOO = {"id": "c2", "type": "function", "function": {"name": "f", "arguments": "{}"}}

GIVEN: list[tuple[Any, list[dict[str, Any]]]] = [
    ("hi", [USER]),
    ([USER], [USER]),
    ([{"type": "message", **USER}], [USER]),
    ([{"role": "developer", "content": text("input_text", "a")}], [{"role": "developer", "content": "a"}]),
    (
        [{"role": "user", "content": text("input_text", "a", "b")}],
        [{"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]}],
    ),
    (
        [{"role": "assistant", "content": [{"type": "refusal", "refusal": "No."}]}],
        [{"role": "assistant", "content": "No."}],
    ),
    (
        [USER, REASONING, ANSWER, CALL, OTHER_CALL, OUTPUT, {**OUTPUT, "call_id": "c2"}],
        [
            USER,
            {"role": "assistant", "content": "yes", "reasoning_content": "Hmm.", "tool_calls": [CALLED, CALLED_TOO]},
            {"role": "tool", "tool_call_id": "c1", "content": "5"},
            {"role": "tool", "tool_call_id": "c2", "content": "5"},
        ],
    ),
    (
        [CALL, ANSWER, ANSWER],
        [
            {"role": "assistant", "content": "", "tool_calls": [CALLED]},
            {"role": "assistant", "content": "yes"},
            {"role": "assistant", "content": "yes"},
        ],
    ),
    (
        [REASONING, REASONING, CALL],
        [
            {"role": "assistant", "content": "", "reasoning_content": "Hmm."},
            {"role": "assistant", "content": "", "reasoning_content": "Hmm.", "tool_calls": [CALLED]},
        ],
    ),
    (
        [{**OUTPUT, "output": text("input_text", "a")}],
        [{"role": "tool", "tool_call_id": "c1", "content": "a"}],
    ),
    (
        [{"type": "reasoning", "summary": [{"type": "summary_text", "text": "s"}], "encrypted_content": "x"}, ANSWER],
        [{"role": "assistant", "content": "yes", "reasoning_content": ""}],
    ),
]


@pytest.mark.parametrize(("given", "expected"), GIVEN, ids=range(len(GIVEN)))
async def test_what_the_model_is_given(
    client: httpx.AsyncClient, engine: FakeDispatchEngine, given: Any, expected: list[dict[str, Any]]
) -> None:
    assert (await client.post(URL, json={"input": given})).status_code == 200
    (request,) = engine.requests
    assert isinstance(request, TextGenerationReq)
    assert request.messages == expected


async def test_instructions_go_ahead(client: httpx.AsyncClient, engine: FakeDispatchEngine) -> None:
    await client.post(URL, json={"input": "hi", "instructions": "Be short."})
    (request,) = engine.requests
    assert isinstance(request, TextGenerationReq)
    assert request.messages == [{"role": "system", "content": "Be short."}, USER]


MALFORMED: list[tuple[Any, str]] = [
    (5, "input"),
    ([], "input"),
    ({}, "input"),
    ([USER] * (MAX_MESSAGES + 1), "input"),
    (["hi"], "input[0]"),
    ([USER, {}], "input[1].role"),
    ([{"role": "tool", "content": "hi"}], "input[0].role"),
    ([{"role": ["user"], "content": "hi"}], "input[0].role"),
    ([{"role": "user"}], "input[0].content"),
    ([{"role": "user", "content": text("input_text", "x") * (MAX_CONTENT_PARTS + 1)}], "input[0].content"),
    ([{"role": "user", "content": ["hi"]}], "input[0].content[0]"),
    ([{"role": "user", "content": [{"type": "input_text"}]}], "input[0].content[0].text"),
    ([{"role": "user", "content": [{"type": "refusal", "text": "x"}]}], "input[0].content[0].refusal"),
    ([{**CALL, "call_id": None}], "input[0].call_id"),
    ([{**CALL, "name": 5}], "input[0].name"),
    ([{**CALL, "arguments": {}}], "input[0].arguments"),
    ([{**OUTPUT, "output": None}], "input[0].output"),
    ([{**OUTPUT, "call_id": 5}], "input[0].call_id"),
    ([{**REASONING, "content": "text"}], "input[0].content"),
]
UNSUPPORTED: list[tuple[Any, str]] = [
    ([USER, {"type": "item_reference", "id": "msg_1"}], "input[1].type"),
    ([{"type": "web_search_call", "id": "ws_1", "status": "completed"}], "input[0].type"),
    ([{"type": ["message"], **USER}], "input[0].type"),
    ([{"role": "user", "content": [{"type": "input_image", "image_url": "x"}]}], "input[0].content[0].type"),
    ([{**OUTPUT, "output": [{"type": "input_file", "file_id": "x"}]}], "input[0].output[0].type"),
]


@pytest.mark.parametrize(("given", "param"), [*MALFORMED, *UNSUPPORTED])
async def test_refused(client: httpx.AsyncClient, engine: FakeDispatchEngine, given: Any, param: str) -> None:
    response = await client.post(URL, json={"input": given})
    error = response.json()["error"]
    assert (response.status_code, error["param"]) == (400, param)
    assert (error["code"] == "unsupported_parameter") == ((given, param) in UNSUPPORTED)
    assert param in error["message"]
    assert engine.requests == []
