"""Constrained texts over HTTP, by the real client and the built-in model, many kinds at once."""

from __future__ import annotations

import asyncio
import json
import re
import time
from typing import Any, Literal

import openai
import pytest
from jsonschema_rs import Draft202012Validator
from pydantic import BaseModel, Field

from tests.e2e.service import Service
from tests.text_engine.constraints.schemas import SCHEMAS

MODEL = "smollm2-135m-instruct"


def schema_format(schema: Any) -> Any:
    return {"type": "json_schema", "json_schema": {"name": "answer", "schema": schema, "strict": True}}


async def ask_each(service: Service, times: int) -> list[tuple[int, str | None]]:
    client = service.async_openai(max_retries=0, timeout=280)

    async def ask(number: int, seed: int) -> tuple[int, str | None]:
        completion = await client.chat.completions.create(
            model=MODEL,
            messages=[{"role": "user", "content": f"Write JSON of this schema: {json.dumps(SCHEMAS[number])[:100]}"}],
            response_format=schema_format(SCHEMAS[number]),
            temperature=(seed + number) % 2,
            seed=seed,
            max_tokens=300,
        )
        return number, completion.choices[0].message.content

    return await asyncio.gather(*(ask(number, seed) for seed in range(times) for number in range(len(SCHEMAS))))


@pytest.mark.timeout(900)
@pytest.mark.parametrize("times", [1, pytest.param(10, marks=pytest.mark.slow)])
def test_all_answers_are_valid(builtin_service: Service, times: int) -> None:
    answers = asyncio.run(ask_each(builtin_service, times))
    assert len(answers) == 30 * times
    for number, text in answers:
        Draft202012Validator(SCHEMAS[number]).validate(json.loads(text or ""))


class Person(BaseModel):
    name: str = Field(max_length=20)
    age: int = Field(ge=0, le=150)
    mood: Literal["glad", "sad"]


def test_parse_gives_an_object(builtin_service: Service) -> None:
    completion = builtin_service.openai().chat.completions.parse(
        model=MODEL,
        messages=[{"role": "user", "content": "Ann is 30 and glad."}],
        response_format=Person,
        temperature=0,
        max_tokens=100,
    )
    assert isinstance(completion.choices[0].message.parsed, Person)


async def ask_in_all_ways(service: Service) -> list[list[str]]:
    client = service.async_openai(max_retries=0, timeout=280)
    ways: list[dict[str, Any]] = [
        {"structured_outputs": {"regex": "[a-z]{3}-[0-9]{2}"}},
        {"structured_outputs": {"choice": ["yes", "no", "été"]}},
        {"structured_outputs": {"grammar": 'root ::= term ("+" term){1,3}\nterm ::= [0-9]'}},
        {"structured_outputs": {"regex": "[a-z]{3}-[0-9]{2}"}, "use_beam_search": True, "beam_width": 3},
        {"guided_choice": ["yes", "no", "été"], "best_of": 4},
    ]
    asked = [
        client.completions.create(model=MODEL, prompt="The answer is", max_tokens=60, n=2, seed=5, extra_body=way)
        for way in ways * 4
    ]
    return [[choice.text for choice in completion.choices] for completion in await asyncio.gather(*asked)]


def test_all_ways_at_once(builtin_service: Service) -> None:
    regex, choice, grammar, beams, best = asyncio.run(ask_in_all_ways(builtin_service))[:5]
    assert all(re.fullmatch("[a-z]{3}-[0-9]{2}", text) for text in (*regex, *beams))
    assert all(text in ("yes", "no", "été") for text in (*choice, *best))
    assert all(re.fullmatch(r"[0-9](\+[0-9]){1,3}", text) for text in grammar)
    assert beams[0] != beams[1]


HOSTILE: dict[str, Any] = {
    "nested parentheses": {"regex": "(" * 30000 + "a" + ")" * 30000},
    "repeated repeat": {"regex": "(a+)+$"},
    "many values": {"json": {"enum": [f"value {number}" for number in range(70_000)]}},
    "endless reference": {"json": {"$ref": "#"}},
    "long grammar": {"grammar": "root ::= " + " | ".join(f'"x{number}"' for number in range(50_000))},
    "deep schema": {"json": '{"items":' * 20_000 + "{}" + "}" * 20_000},
}


@pytest.mark.rule("S6")
@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_ones_disturb_nobody(builtin_service: Service, name: str) -> None:
    client = builtin_service.openai(max_retries=0)
    began = time.monotonic()
    with pytest.raises(openai.BadRequestError) as refused:
        client.completions.create(model=MODEL, prompt="a", extra_body={"structured_outputs": HOSTILE[name]})
    assert refused.value.param == "structured_outputs"
    assert time.monotonic() - began < 30, "hung"
    assert client.completions.create(model=MODEL, prompt="a", max_tokens=2).choices[0].text
