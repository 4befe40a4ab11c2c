"""Whatever stands in a body: it becomes a request that can travel, or the client's mistake in one short sentence."""

from __future__ import annotations

import json
from random import Random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.entrypoints.conftest import client_of
from tests.entrypoints.fake_dispatch_engine import FakeDispatchEngine
from tests.fuzz.http_cases import body_bytes
from tests.fuzz.http_reply import HttpReply
from vfastml.engine.wire import decode_request, encode_request
from vfastml.entrypoints.anthropic.count_request import CountTokensRequest
from vfastml.entrypoints.anthropic.messages_request import MessagesRequest
from vfastml.entrypoints.api_server import Gateway
from vfastml.entrypoints.limits import MAX_TOTAL_CHOICES
from vfastml.entrypoints.openai.api_request import ApiRequest
from vfastml.entrypoints.openai.chat import ChatCompletionsRequest
from vfastml.entrypoints.openai.completions import CompletionsRequest
from vfastml.entrypoints.openai.tokenize import DetokenizeRequest, TokenizeRequest
from vfastml.entrypoints.validation import parse_body
from vfastml.errors import UserError

SCHEMAS: dict[str, type[ApiRequest]] = {
    "/v1/chat/completions": ChatCompletionsRequest,
    "/v1/completions": CompletionsRequest,
    "/v1/messages": MessagesRequest,
    "/v1/messages/count_tokens": CountTokensRequest,
    "/tokenize": TokenizeRequest,
    "/detokenize": DetokenizeRequest,
}
PATHS = sorted(SCHEMAS)
ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=10,
)
MOST_WORDS = 400
"""Of a refusal, in characters: it does not grow with what was sent."""


def check(path: str, raw: bytes) -> None:
    try:
        work = _work(parse_body(raw, SCHEMAS[path]))
        frames = [encode_request(request) for request in work]
    except UserError as error:
        check_refusal(error)
    else:
        assert [decode_request(frame) for frame in frames] == work
        assert sum(getattr(request, "n", None) or 1 for request in work) <= MAX_TOTAL_CHOICES


def check_refusal(error: UserError) -> None:
    assert error.status == 400
    assert len(error.message) < MOST_WORDS
    assert error.message.isprintable()


def _work(body: Any) -> list[Any]:
    work = body.to_work("r")
    return work if isinstance(work, list) else [work]


@pytest.mark.rule("S4")
@pytest.mark.parametrize("path", PATHS)
def test_damaged_bodies(path: str) -> None:
    @given(st.integers(min_value=0, max_value=1 << 32))
    @settings(max_examples=300, deadline=None)
    def check_one(seed: int) -> None:
        check(path, body_bytes(Random(seed), path))

    check_one()


@pytest.mark.rule("S4")
@pytest.mark.parametrize("path", PATHS)
def test_any_bytes(path: str) -> None:
    @given(st.binary(max_size=200))
    @settings(max_examples=100, deadline=None)
    def check_one(raw: bytes) -> None:
        check(path, raw)

    check_one()


@pytest.mark.rule("S10")
@pytest.mark.parametrize("path", PATHS)
def test_any_value_in_any_field(path: str) -> None:
    fields = sorted(SCHEMAS[path].model_fields)
    needed = {
        "/v1/chat/completions": {"messages": "hi"},
        "/v1/messages": {"max_tokens": 1, "messages": [{"role": "user", "content": "hi"}]},
        "/v1/messages/count_tokens": {"messages": [{"role": "user", "content": "hi"}]},
    }.get(path, {"prompt": "hi", "tokens": [1]})

    @given(st.dictionaries(st.sampled_from(fields), ANYTHING, max_size=3))
    @settings(max_examples=200, deadline=None)
    def check_one(values: dict[str, Any]) -> None:
        check(path, json.dumps({**needed, **values}).encode())

    check_one()


@pytest.mark.rule("S10")
async def test_over_http_every_refusal_has_the_envelope() -> None:
    engine = FakeDispatchEngine()
    async with client_of(Gateway(dispatch_engine=engine)) as client:
        for seed in range(400):
            path = PATHS[seed % len(PATHS)]
            response = await client.post(path, content=body_bytes(Random(seed), path))
            assert response.status_code in (200, 400), (seed, response.text)
            assert HttpReply(response.status_code, bytearray(response.content), is_whole=True).problem() is None
    assert engine.requests, "not one of them was sound"
