"""How messages become a prompt: what the engine gets of these fields."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from tests.entrypoints.fake_dispatch_engine import FakeDispatchEngine
from vfastml.engine.dispatch_replies import Accepted, Delta, Finished, Usage
from vfastml.engine.dispatch_requests import TemplateOptions, TextGenerationReq
from vfastml.engine.dispatch_task import DispatchTask


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({}, TemplateOptions()),
        ({"chat_template_kwargs": {}, "documents": []}, TemplateOptions()),
        ({"chat_template_kwargs": {"a": [1, None]}}, TemplateOptions({"a": [1, None]})),
        ({"add_generation_prompt": False}, TemplateOptions(add_generation_prompt=False)),
        (
            {"continue_final_message": True},
            TemplateOptions(add_generation_prompt=False, continue_final_message=True),
        ),
        ({"documents": [{"text": "d"}]}, TemplateOptions(documents=[{"text": "d"}])),
        ({"reasoning_effort": "none"}, TemplateOptions(reasoning_effort="none")),
    ],
)
async def test_options(
    client: httpx.AsyncClient, engine: FakeDispatchEngine, fields: dict[str, Any], expected: TemplateOptions
) -> None:
    response = await client.post("/v1/chat/completions", json={"messages": "hi", **fields})
    assert response.status_code == 200
    (request,) = engine.requests
    assert isinstance(request, TextGenerationReq)
    assert request.template == expected


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"continue_final_message": True, "add_generation_prompt": True}, "continue_final_message"),
        ({"chat_template_kwargs": [1]}, "chat_template_kwargs"),
        ({"chat_template_kwargs": {str(number): 1 for number in range(33)}}, "chat_template_kwargs"),
        ({"documents": [1]}, "documents[0]"),
        ({"documents": [{}] * 129}, "documents"),
        ({"reasoning_effort": 3}, "reasoning_effort"),
        ({"reasoning_effort": "x" * 33}, "reasoning_effort"),
    ],
)
async def test_refused(client: httpx.AsyncClient, fields: dict[str, Any], param: str) -> None:
    response = await client.post("/v1/chat/completions", json={"messages": "hi", **fields})
    assert (response.status_code, response.json()["error"]["param"]) == (400, param)


async def think(task: DispatchTask) -> None:
    task.add_accepted(Accepted(task.request_id, 5))
    task.add_delta(Delta(task.request_id, reasoning="Hm."))
    task.add_delta(Delta(task.request_id, text="Paris."))
    task.add_delta(Delta(task.request_id, finish_reason="stop"))
    task.finish(Finished(task.request_id, Usage(5, 4, 0, 2)))


@pytest.mark.parametrize(("shows", "expected"), [(None, "Hm."), (True, "Hm."), (False, None)])
@pytest.mark.parametrize("stream", [False, True])
async def test_reasoning_under_both_names(
    client: httpx.AsyncClient, engine: FakeDispatchEngine, shows: bool | None, expected: str | None, stream: bool
) -> None:
    engine.script = think
    body = {"messages": "hi", "include_reasoning": shows, "stream": stream}
    response = await client.post("/v1/chat/completions", json=body)
    if stream:
        assert response.text.count('"reasoning":"Hm.","') + response.text.count('"reasoning":"Hm."}') == bool(expected)
        assert response.text.count('"reasoning_content":"Hm."') == bool(expected)
        assert '"content":"Paris."' in response.text
        return
    message = response.json()["choices"][0]["message"]
    assert (message.get("reasoning_content"), message.get("reasoning")) == (expected, expected)
    assert message["content"] == "Paris."
    assert response.json()["usage"]["completion_tokens_details"]["reasoning_tokens"] == 2


@pytest.mark.parametrize(("asked", "splits"), [(None, True), (True, True), (False, False)])
async def test_reasoning_may_stay_in_the_text(
    client: httpx.AsyncClient, engine: FakeDispatchEngine, asked: bool | None, splits: bool
) -> None:
    await client.post("/v1/chat/completions", json={"messages": "hi", "separate_reasoning": asked})
    (request,) = engine.requests
    assert isinstance(request, TextGenerationReq)
    assert request.splits_reasoning is splits
