"""Log probabilities as chat and completions word them, whole and streamed."""

from __future__ import annotations

import json
from typing import Any

import httpx
import pytest

from vfastml.engine.dispatch_replies import PlaceLogprobs, TokenLogprob
from vfastml.entrypoints.openai.logprobs import CompletionLogprobs

CHAT = {"messages": "hi", "logprobs": True, "top_logprobs": 1}
COMPLETION = {"prompt": "hi", "logprobs": 1}
CHAT_PLACE = {
    "token": "Hello",
    "logprob": -0.5,
    "bytes": [72, 101, 108, 108, 111],
    "top_logprobs": [{"token": "\ufffd", "logprob": -0.25, "bytes": [0xE2, 0x80]}],
}


async def post(client: httpx.AsyncClient, path: str, **body: Any) -> Any:
    response = await client.post(path, json=body)
    assert response.status_code == 200
    return response.json()


async def chunks(client: httpx.AsyncClient, path: str, **body: Any) -> list[dict[str, Any]]:
    response = await client.post(path, json={**body, "stream": True})
    events = [line.removeprefix("data: ") for line in response.text.splitlines() if line]
    return [json.loads(event)["choices"][0] for event in events if event != "[DONE]"]


async def test_chat(client: httpx.AsyncClient) -> None:
    (choice,) = (await post(client, "/v1/chat/completions", **CHAT))["choices"]
    assert choice["logprobs"] == {"content": [CHAT_PLACE, CHAT_PLACE], "refusal": None}


async def test_chat_streamed(client: httpx.AsyncClient) -> None:
    choices = await chunks(client, "/v1/chat/completions", **CHAT)
    reported = [(choice["delta"].get("content"), choice["logprobs"]) for choice in choices]
    place = {"content": [CHAT_PLACE], "refusal": None}
    assert reported == [("", None), ("Hello", place), (" world", place), (None, None)]


@pytest.mark.parametrize("echo", [False, True])
async def test_completions(client: httpx.AsyncClient, echo: bool) -> None:
    (choice,) = (await post(client, "/v1/completions", **COMPLETION, echo=echo))["choices"]
    first = {"tokens": ["<s>", "Hello"], "token_logprobs": [None, -0.5]} if echo else {}
    top = {"bytes:\\xe2\\x80": -0.25, "Hello": -0.5}
    assert choice["logprobs"] == {
        "tokens": [*first.get("tokens", []), "Hello", "Hello"],
        "token_logprobs": [*first.get("token_logprobs", []), -0.5, -0.5],
        "top_logprobs": [*([None, top] if echo else []), top, top],
        "text_offset": [0, 3, 8, 13] if echo else [0, 5],
    }
    assert "prompt_logprobs" not in choice


async def test_completions_streamed_are_the_same_in_pieces(client: httpx.AsyncClient) -> None:
    (whole,) = (await post(client, "/v1/completions", **COMPLETION, echo=True))["choices"]
    pieces = [choice["logprobs"] for choice in await chunks(client, "/v1/completions", **COMPLETION, echo=True)]
    assert len(pieces) == 2
    joined = {name: [value for piece in pieces for value in piece[name]] for name in pieces[0]}
    assert joined == whole["logprobs"]


async def test_tokens_by_their_ids(client: httpx.AsyncClient) -> None:
    named = {"return_tokens_as_token_ids": True}
    (choice,) = (await post(client, "/v1/completions", **COMPLETION, **named))["choices"]
    assert choice["logprobs"]["tokens"] == ["token_id:7"] * 2
    assert choice["logprobs"]["top_logprobs"] == [{"token_id:9": -0.25, "token_id:7": -0.5}] * 2
    (choice,) = (await post(client, "/v1/chat/completions", **CHAT, **named))["choices"]
    assert choice["logprobs"]["content"][0] == {
        **CHAT_PLACE,
        "token": "token_id:7",
        "top_logprobs": [{**CHAT_PLACE["top_logprobs"][0], "token": "token_id:9"}],  # type: ignore[index]
    }


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/completions"])
async def test_prompt(client: httpx.AsyncClient, path: str) -> None:
    prompt = {"messages": "hi"} if "chat" in path else {"prompt": "hi"}
    (choice,) = (await post(client, path, **prompt, prompt_logprobs=1))["choices"]
    assert choice["logprobs"] is None
    assert choice["prompt_logprobs"] == [
        None,
        {
            "9": {"logprob": -0.25, "rank": 1, "decoded_token": "\ufffd"},
            "7": {"logprob": -0.5, "rank": 2, "decoded_token": "Hello"},
        },
    ]


async def test_nothing_is_said_unasked(client: httpx.AsyncClient) -> None:
    for path, body in (("/v1/chat/completions", {"messages": "hi"}), ("/v1/completions", {"prompt": "hi"})):
        (choice,) = (await post(client, path, **body))["choices"]
        assert choice["logprobs"] is None
        assert {"prompt_logprobs", "score", "token_ids"}.isdisjoint(choice)


async def test_score_of_a_beam(client: httpx.AsyncClient) -> None:
    search = {"use_beam_search": True, "beam_width": 2}
    for path, body in (("/v1/chat/completions", {"messages": "hi"}), ("/v1/completions", {"prompt": "hi"})):
        (choice,) = (await post(client, path, **body, **search))["choices"]
        assert choice["score"] == -0.5
        assert (await chunks(client, path, **body, **search))[-1]["score"] == -0.5


def test_offsets_count_characters_whose_bytes_are_many_tokens() -> None:
    snowman = "☃".encode()
    tokens = [b"a", snowman[:1], snowman[1:], b"b"]
    said = CompletionLogprobs(names_ids=False).push(
        [PlaceLogprobs(TokenLogprob(number, token, -1.0), 1) for number, token in enumerate(tokens)]
    )
    assert said["tokens"] == ["a", "bytes:\\xe2", "bytes:\\x98\\x83", "b"]
    assert said["text_offset"] == [0, 1, 1, 2]
    assert said["top_logprobs"] == [None] * 4
