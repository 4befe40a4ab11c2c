"""The bodies of answers that are not streamed."""

from __future__ import annotations

import httpx

from tests.entrypoints.fake_dispatch_engine import FakeDispatchEngine, choose_two
from vfastml.engine.dispatch_replies import Accepted, Delta, Finished, Usage
from vfastml.engine.dispatch_task import DispatchTask


async def test_chat(client: httpx.AsyncClient) -> None:
    body = (await client.post("/v1/chat/completions", json={"messages": "x"})).json()
    assert body.pop("id").startswith("chatcmpl-")
    assert body.pop("created") > 1_700_000_000
    assert body == {
        "object": "chat.completion",
        "model": "tiny",
        "system_fingerprint": None,
        "service_tier": None,
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": "Hello world", "refusal": None},
                "logprobs": None,
                "finish_reason": "stop",
                "stop_reason": "END",
            }
        ],
        "usage": {
            "prompt_tokens": 5,
            "completion_tokens": 2,
            "total_tokens": 7,
            "prompt_tokens_details": {"cached_tokens": 2},
            "completion_tokens_details": {"reasoning_tokens": 0},
        },
    }


async def test_completions_of_several_prompts(client: httpx.AsyncClient) -> None:
    body = (await client.post("/v1/completions", json={"prompt": ["a", "b"], "n": 3})).json()
    assert body["id"].startswith("cmpl-")
    assert body["object"] == "text_completion"
    assert [choice["index"] for choice in body["choices"]] == [0, 1, 2, 3, 4, 5]
    assert body["choices"][5] == {
        "index": 5,
        "text": "Hello world",
        "logprobs": None,
        "finish_reason": "stop",
        "stop_reason": "END",
    }
    assert body["usage"]["prompt_tokens"] == 10
    assert body["usage"]["completion_tokens"] == 12
    assert body["usage"]["total_tokens"] == 22
    assert body["usage"]["prompt_tokens_details"] == {"cached_tokens": 4}


async def test_number_of_choices_is_the_servers_where_none_is_asked_for(
    client: httpx.AsyncClient, engine: FakeDispatchEngine
) -> None:
    engine.script = choose_two
    choices = (await client.post("/v1/completions", json={"prompt": ["a", "b"]})).json()["choices"]
    assert [choice["index"] for choice in choices] == [0, 1, 2, 3]


async def test_each_choice_of_each_prompt_is_in_its_place(
    client: httpx.AsyncClient, engine: FakeDispatchEngine
) -> None:
    async def name_the_choice(task: DispatchTask) -> None:
        task.add_accepted(Accepted(task.request_id, 1))
        for index in (1, 0):
            task.add_delta(Delta(task.request_id, index, f"{task.request.prompt}{index}", None, "length"))
        task.finish(Finished(task.request_id, Usage(1, 2)))

    engine.script = name_the_choice
    choices = (await client.post("/v1/completions", json={"prompt": ["a", "b"], "n": 2})).json()["choices"]
    assert [choice["text"] for choice in choices] == ["a0", "a1", "b0", "b1"]
    assert {choice["finish_reason"] for choice in choices} == {"length"}


async def test_token_ids(client: httpx.AsyncClient) -> None:
    chat = (await client.post("/v1/chat/completions", json={"messages": "x", "return_token_ids": True})).json()
    assert chat["prompt_token_ids"] == [1, 2, 3, 4, 5]
    assert chat["choices"][0]["token_ids"] == [7, 8, 7, 8]
    whole = (await client.post("/v1/completions", json={"prompt": ["a", "b"], "return_token_ids": True})).json()
    assert "prompt_token_ids" not in whole
    assert [choice["prompt_token_ids"] for choice in whole["choices"]] == [[1, 2, 3, 4, 5]] * 2


async def test_models(client: httpx.AsyncClient) -> None:
    body = (await client.get("/v1/models")).json()
    assert set(body) == {"object", "data"}
    assert body["object"] == "list"
    assert [model["id"] for model in body["data"]] == ["tiny", "tiny-alias"]
    assert body["data"][0] == {
        "id": "tiny",
        "object": "model",
        "created": 1700000000,
        "owned_by": "vfastml",
        "root": "tiny",
        "parent": None,
        "max_model_len": 512,
        "vfastml": {
            "decoder": "hf",
            "device": "cpu",
            "dtype": "bfloat16",
            "max_num_seqs": 8,
            "max_num_batched_tokens": 64,
            "kv_cache_tokens": 640,
            "tpot_ms": 12.5,
            "decode_tokens_per_s": 640.0,
            "prefill_tokens_per_s": 1500.0,
            "measured": True,
        },
    }
    assert (await client.get("/v1/models/tiny-alias")).json() == body["data"][1]
    assert (await client.get("/v1/models/builtin:tiny")).json()["root"] == "tiny"


async def test_unknown_model(client: httpx.AsyncClient) -> None:
    response = await client.get("/v1/models/org/other")
    assert (response.status_code, response.json()["error"]["code"]) == (404, "model_not_found")


async def test_tokenize(client: httpx.AsyncClient, engine: FakeDispatchEngine) -> None:
    response = await client.post("/tokenize", json={"model": "tiny", "prompt": "x", "add_special_tokens": False})
    assert response.json() == {"count": 3, "max_model_len": 512, "tokens": [1, 2, 3]}
    await client.post("/tokenize", json={"messages": [{"role": "user", "content": "x"}]})
    first, second = engine.requests
    assert (first.model_uri, first.prompt, first.add_special_tokens) == ("tiny", "x", False)
    assert (second.messages, second.add_special_tokens) == ([{"role": "user", "content": "x"}], True)


async def test_tokenize_takes_one_of_two(client: httpx.AsyncClient) -> None:
    for body in ({}, {"prompt": "x", "messages": "y"}):
        assert (await client.post("/tokenize", json=body)).status_code == 400


async def test_detokenize(client: httpx.AsyncClient, engine: FakeDispatchEngine) -> None:
    response = await client.post("/detokenize", json={"model": "tiny", "tokens": [1, 2]})
    assert response.json() == {"prompt": "text"}
    assert (engine.requests[0].model_uri, engine.requests[0].tokens) == ("tiny", [1, 2])
    for tokens in (None, [-1], [2**31], ["1"], "12"):
        assert (await client.post("/detokenize", json={"tokens": tokens})).status_code == 400


async def test_documentation(client: httpx.AsyncClient) -> None:
    assert (await client.get("/docs")).status_code == 200
    document = (await client.get("/openapi.json")).json()
    schema = document["paths"]["/v1/chat/completions"]["post"]["requestBody"]["content"]["application/json"]["schema"]
    assert schema["required"] == ["messages"]
    assert {"model", "temperature", "stream_options"} <= set(schema["properties"])
    assert "$ref" not in str(schema)
    assert "head" not in document["paths"]["/livez"]
