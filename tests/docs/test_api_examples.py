"""The examples in docs/api.md are answered as they say: the same status, and the same fields in every object."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import httpx
import pytest

from tests.docs.markdown import DOCS, code_blocks
from tests.entrypoints.fake_dispatch_engine import MODEL, FakeDispatchEngine
from vfastml.entrypoints.api_server import Gateway


@dataclass(frozen=True, slots=True)
class Example:
    method: str
    path: str
    body: str
    answer: str


def _examples() -> list[Example]:
    blocks = code_blocks((DOCS / "api.md").read_text())
    found = []
    for request, answer in pairwise(blocks):
        if request.language == "http":
            line, _, body = request.text.partition("\n")
            found.append(Example(*line.split(), body.strip(), answer.text))
    return found


EXAMPLES = _examples()


@pytest.fixture
async def client() -> AsyncIterator[httpx.AsyncClient]:
    transport = httpx.ASGITransport(Gateway(dispatch_engine=FakeDispatchEngine()).build())
    async with httpx.AsyncClient(transport=transport, base_url="http://gateway") as client:
        yield client


@pytest.mark.parametrize("example", EXAMPLES, ids=[f"{each.method} {each.path}" for each in EXAMPLES])
async def test_answers_have_the_shape_that_is_shown(client: httpx.AsyncClient, example: Example) -> None:
    path = example.path.replace("smollm2-135m-instruct", MODEL.id)
    response = await client.request(example.method, path, content=example.body)
    assert response.is_success == ('"error": {' not in example.answer)
    assert _shapes(response.text) == _shapes(example.answer)


def test_every_route_with_a_body_has_an_example() -> None:
    paths = {example.path for example in EXAMPLES if example.method == "POST"}
    assert paths == {
        "/v1/chat/completions",
        "/v1/chat/completions/input_tokens",
        "/v1/completions",
        "/v1/messages",
        "/v1/messages/count_tokens",
        "/v1/responses",
        "/tokenize",
        "/detokenize",
        "/apply-template",
    }


def _shapes(text: str) -> set[str]:
    """The shape of a JSON body, or the shapes of a stream's events."""
    if not text.startswith(("data: ", "event: ")):
        return {_shape(json.loads(text))}
    events = [line.removeprefix("data: ") for line in text.splitlines() if line.startswith("data: ")]
    if text.startswith("data: "):
        assert events.pop() == "[DONE]"
    return {_shape(json.loads(event)) for event in events}


def _shape(value: Any) -> str:
    return json.dumps(_bare(value), sort_keys=True)


def _bare(value: Any) -> Any:
    """Without values; of a list only the first element, as it stands for the others."""
    if isinstance(value, dict):
        return {key: _bare(inner) for key, inner in value.items()}
    return [_bare(inner) for inner in value[:1] if isinstance(inner, dict)] if isinstance(value, list) else None
