"""The real `openai` client against the real service."""

from __future__ import annotations

import asyncio
import random
from typing import Any

import openai
import pytest

from tests.e2e.service import Service

MODEL = "smollm2-135m-instruct"
QUESTION: list[Any] = [{"role": "user", "content": "What is the capital of France?"}]

SERVICES = ["builtin_service", pytest.param("float32_service", marks=pytest.mark.slow)]
"""All that the second one says is held against transformers, in the tests beside this one."""


def capital(service: Service) -> str:
    completion = service.openai().chat.completions.create(model=MODEL, messages=QUESTION, temperature=0, max_tokens=30)
    return completion.choices[0].message.content or ""


async def beside_others(service: Service, count: int, length: int, **fields: Any) -> Any:
    """One chat completion while `count` other requests of all kinds run, of `length` tokens each."""
    client = service.async_openai(max_retries=0, timeout=200)
    rng = random.Random(3)
    others = [
        client.completions.create(
            model=MODEL,
            prompt=[rng.randrange(100, 9000) for _ in range(rng.randrange(1, 100))],
            max_tokens=length,
            temperature=rng.choice([0, 0.7, 1.2]),
            extra_body={"ignore_eos": True, "top_k": rng.choice([0, 20])},
        )
        for _ in range(count)
    ]
    running = [asyncio.ensure_future(other) for other in others]
    await asyncio.sleep(0.5)
    answer = await client.chat.completions.create(model=MODEL, **fields)
    assert not all(other.done() for other in running)
    await asyncio.gather(*running)
    return answer


@pytest.mark.parametrize("service_name", SERVICES)
def test_capital_of_france(service_name: str, request: pytest.FixtureRequest) -> None:
    service: Service = request.getfixturevalue(service_name)
    assert "Paris" in capital(service)
    among = asyncio.run(beside_others(service, 16, 40, messages=QUESTION, temperature=0, max_tokens=30))
    assert "Paris" in among.choices[0].message.content


def test_chat_answers_whole(builtin_service: Service) -> None:
    completion = builtin_service.openai().chat.completions.create(
        model=MODEL, messages=QUESTION, temperature=0, max_tokens=5
    )
    choice = completion.choices[0]
    assert (choice.finish_reason, choice.message.role) == ("length", "assistant")
    assert completion.object == "chat.completion"
    assert completion.usage is not None
    usage = completion.usage
    assert (usage.prompt_tokens, usage.completion_tokens, usage.total_tokens) == (37, 5, 42)


def test_streamed_chat_equals_the_whole_one(builtin_service: Service) -> None:
    client = builtin_service.openai()
    fields: Any = {"model": MODEL, "messages": QUESTION, "temperature": 0, "max_tokens": 40}
    whole = client.chat.completions.create(**fields)
    chunks = list(client.chat.completions.create(**fields, stream=True, stream_options={"include_usage": True}))
    assert chunks[0].choices[0].delta.role == "assistant"
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    assert text == whole.choices[0].message.content
    assert [c.choices[0].finish_reason for c in chunks if c.choices][-1] == whole.choices[0].finish_reason == "stop"
    assert chunks[-1].choices == []
    assert chunks[-1].usage is not None
    assert whole.usage is not None
    assert chunks[-1].usage.completion_tokens == whole.usage.completion_tokens
    assert len({(chunk.id, chunk.created, chunk.model) for chunk in chunks}) == 1


def test_completions_of_several_prompts(builtin_service: Service) -> None:
    completion = builtin_service.openai().completions.create(
        model=MODEL, prompt=["The capital of France is", "One two three four"], n=2, max_tokens=4, echo=True, seed=5
    )
    assert [choice.index for choice in completion.choices] == [0, 1, 2, 3]
    starts = [choice.text.startswith("The capital of France is") for choice in completion.choices]
    assert starts == [True, True, False, False]
    assert completion.usage is not None
    assert completion.usage.completion_tokens == 16


def test_three_choices_are_three_texts(builtin_service: Service) -> None:
    completion = builtin_service.openai().chat.completions.create(
        model=MODEL, messages=[{"role": "user", "content": "Tell me a story."}], n=3, seed=1, max_tokens=20
    )
    assert [choice.index for choice in completion.choices] == [0, 1, 2]
    assert len({choice.message.content for choice in completion.choices}) == 3
    assert completion.usage is not None
    assert completion.usage.completion_tokens == 60


def test_stop_string_ends_the_text_and_is_not_in_it(builtin_service: Service) -> None:
    fields: Any = {"model": MODEL, "messages": QUESTION, "temperature": 0, "max_tokens": 40}
    client = builtin_service.openai()
    whole = client.chat.completions.create(**fields).choices[0].message.content or ""
    stop = whole[len(whole) // 2 - 2 : len(whole) // 2 + 3]  # begins and ends inside of words
    stopped = client.chat.completions.create(**fields, stop=["never said", stop]).choices[0]
    assert stopped.message.content == whole[: whole.index(stop)]
    assert stopped.finish_reason == "stop"
    assert stopped.to_dict()["stop_reason"] == stop
    chunks = list(client.chat.completions.create(**fields, stop=stop, stream=True))
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == stopped.message.content


@pytest.mark.parametrize("service_name", SERVICES)
def test_same_seed_same_text_also_under_load(service_name: str, request: pytest.FixtureRequest) -> None:
    service: Service = request.getfixturevalue(service_name)
    fields: Any = {"messages": [{"role": "user", "content": "Tell me a story."}], "seed": 11, "max_tokens": 40}
    client = service.openai()
    alone = [client.chat.completions.create(model=MODEL, **fields).choices[0].message.content for _ in range(2)]
    assert alone[0] == alone[1]
    among = asyncio.run(beside_others(service, 12, 100, **fields))
    assert among.choices[0].message.content == alone[0]
    fields["seed"] = 12
    assert client.chat.completions.create(model=MODEL, **fields).choices[0].message.content != alone[0]


def test_errors_are_the_clients_own_classes(builtin_service: Service) -> None:
    client = builtin_service.openai(max_retries=0)
    with pytest.raises(openai.NotFoundError) as unknown:
        client.chat.completions.create(model="nobody", messages=QUESTION)
    assert unknown.value.code == "model_not_found"
    with pytest.raises(openai.BadRequestError) as too_long:
        client.completions.create(model=MODEL, prompt=[5] * 9000)
    assert too_long.value.code == "context_length_exceeded"
    with pytest.raises(openai.BadRequestError) as unsupported:
        client.chat.completions.create(model=MODEL, messages=QUESTION, modalities=["text", "audio"])
    assert unsupported.value.param == "modalities"
    with pytest.raises(openai.BadRequestError):
        client.chat.completions.create(model=MODEL, messages=QUESTION, temperature=9)


def test_models_and_tokens(builtin_service: Service) -> None:
    client = builtin_service.openai()
    assert [model.id for model in client.models.list()] == [MODEL]
    http = builtin_service.http
    (server,) = http.get("/load").json()["servers"]
    assert client.models.retrieve(MODEL).to_dict()["max_model_len"] == server["limits"]["max_model_len"] > 2000
    tokens = http.post("/tokenize", json={"model": MODEL, "prompt": "Hello world"}).json()
    assert tokens["count"] == len(tokens["tokens"]) == 2
    assert http.post("/detokenize", json={"model": MODEL, "tokens": tokens["tokens"]}).json() == {
        "prompt": "Hello world"
    }


def test_huge_prompt_is_refused_quickly_and_others_go_on(builtin_service: Service) -> None:
    huge = builtin_service.chat(model=MODEL, messages=[{"role": "user", "content": "word " * 2_000_000}])
    assert huge.status_code == 400
    assert huge.json()["error"]["code"] == "context_length_exceeded"
    assert "Paris" in capital(builtin_service)
