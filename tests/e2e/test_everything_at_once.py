"""Requests that each generate in their own way, in one running batch: over HTTP, each gets what it gets alone."""

from __future__ import annotations

import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from tests.e2e.service import Service

PAINTER = {
    "type": "object",
    "properties": {"name": {"type": "string", "maxLength": 12}, "alive": {"type": "boolean"}},
    "required": ["name", "alive"],
    "additionalProperties": False,
}
WEATHER = {
    "name": "get_weather",
    "description": "Current weather of a city",
    "parameters": {
        "type": "object",
        "properties": {"city": {"type": "string", "maxLength": 20}, "unit": {"enum": ["celsius", "fahrenheit"]}},
        "required": ["city", "unit"],
    },
}
TOOLS = {"tools": [{"type": "function", "function": WEATHER}]}
QUESTIONS = ["Who painted the Mona Lisa?", "What is the weather in Paris?", "Say hello."]

KINDS: dict[str, dict[str, Any]] = {
    "greedy": {"temperature": 0, "max_tokens": 20},
    "sampled": {"temperature": 0.9, "top_p": 0.9, "seed": 5, "max_tokens": 20},
    "n=4": {"n": 4, "temperature": 1.1, "top_k": 40, "seed": 6, "max_tokens": 20},
    "beam-4 with a stop string": {"use_beam_search": True, "beam_width": 4, "n": 2, "stop": [".", " the"]},
    "beam-3 with a schema": {
        "use_beam_search": True,
        "beam_width": 3,
        "response_format": {"type": "json_schema", "json_schema": {"name": "painter", "schema": PAINTER}},
    },
    "regex": {"temperature": 0.8, "seed": 7, "structured_outputs": {"regex": "[A-Z][a-z]{2,8}( [a-z]{1,8}){1,3}[.]"}},
    "forced call": {**TOOLS, "tool_choice": "required", "parallel_tool_calls": False, "temperature": 0.7, "seed": 8},
    "penalised, with log probabilities": {
        "temperature": 0,
        "frequency_penalty": 0.5,
        "repetition_penalty": 1.1,
        "logprobs": True,
        "top_logprobs": 2,
        "max_tokens": 20,
    },
}


def answer(service: Service, question: str, fields: dict[str, Any]) -> dict[str, Any]:
    response = service.chat(**{"messages": question, "max_tokens": 40, **fields})
    assert response.status_code == 200, response.text
    return response.json()


def said(body: dict[str, Any], number: Callable[[str], Any] = float) -> Any:
    """What does not depend on when it was asked: calls' ids are drawn, and the prefix cache fills."""
    choices = json.loads(json.dumps(body["choices"]), parse_float=number)
    for choice in choices:
        for call in choice["message"].get("tool_calls", ()):
            del call["id"]
    return choices, body["usage"]["completion_tokens"]


def nearly(number: str) -> Any:
    return pytest.approx(float(number), abs=1e-3)


def test_each_gets_what_it_gets_alone(float32_service: Service) -> None:
    asked = [(question, kind) for question in QUESTIONS for kind in KINDS]
    assert len(asked) >= 24
    alone = [said(answer(float32_service, question, KINDS[kind]), nearly) for question, kind in asked]
    with ThreadPoolExecutor(len(asked)) as pool:
        together = list(pool.map(lambda one: answer(float32_service, one[0], KINDS[one[1]]), asked))
    for (question, kind), one, whole in zip(asked, alone, together, strict=True):
        assert said(whole) == one, (question, kind)
        check_form(kind, whole)


def check_form(kind: str, body: dict[str, Any]) -> None:
    first = body["choices"][0]
    message = first["message"]
    if kind == "forced call":
        (call,) = message["tool_calls"]
        arguments = json.loads(call["function"]["arguments"])
        assert (first["finish_reason"], call["function"]["name"]) == ("tool_calls", "get_weather")
        assert set(arguments) == {"city", "unit"}
    elif kind == "beam-3 with a schema":
        assert set(json.loads(message["content"])) == {"name", "alive"}
    elif kind == "regex":
        assert message["content"].endswith(".")
    elif kind == "n=4":
        assert len({choice["message"]["content"] for choice in body["choices"]}) > 1
