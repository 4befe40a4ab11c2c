"""What HTTP lets through is never refused by the table."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import pytest

from vfastml.engine.text_parameters import PARAMETERS, checked
from vfastml.entrypoints.openai.completions import CompletionsRequest


def http_bounds() -> Iterator[tuple[str, Any]]:
    """The first and the last value that the HTTP schema allows, for each field with a range."""
    for name, field in CompletionsRequest.model_json_schema()["properties"].items():
        for schema in field["anyOf"] if name in PARAMETERS else ():
            for key, inward in (("minimum", 0), ("exclusiveMinimum", 1), ("maximum", 0), ("exclusiveMaximum", -1)):
                if key in schema:
                    yield name, _moved(schema[key], inward, whole=schema["type"] == "integer")


def _moved(bound: Any, inward: int, *, whole: bool) -> Any:
    if whole:
        return int(bound) + inward
    return math.nextafter(bound, inward * math.inf) if inward else bound


@pytest.mark.rule("S5")
@pytest.mark.parametrize(("name", "bound"), list(http_bounds()))
def test_ranges_of_http_lie_within_the_table(name: str, bound: Any) -> None:
    body = CompletionsRequest(**{"prompt": ["hi"], "max_tokens": 2**31 - 1, name: bound})
    value = body.n if name == "n" else getattr(body.sampling(), name)
    assert checked(name, value) == value


@pytest.mark.rule("S5")
def test_each_number_of_http_has_a_range() -> None:
    whole = {"max_tokens", "min_tokens", "top_k", "seed", "n", "logprobs", "prompt_logprobs"}
    penalties = {"repetition_penalty", "frequency_penalty", "presence_penalty"}
    assert {name for name, _ in http_bounds()} == whole | penalties | {"temperature", "top_p", "min_p", "typical_p"}
