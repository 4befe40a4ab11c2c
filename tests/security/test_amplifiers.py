"""S5: every field that multiplies work has a limit, on every route that has the field, and so has what they come to."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from tests.entrypoints.conftest import client, client_of, engine  # noqa: F401
from tests.entrypoints.fake_dispatch_engine import FakeDispatchEngine
from tests.tiny_models import byte_tokenizer
from vfastml.engine.dispatch_replies import Limits
from vfastml.engine.dispatch_requests import BeamSearch, SamplingParams, TextGenerationReq
from vfastml.engine.text_parameters import MAX_ANSWER_TOKENS
from vfastml.entrypoints.api_server import Gateway
from vfastml.errors import InvalidRequestError
from vfastml.text_engine.answer_size import answer_size
from vfastml.text_engine.forward_defaults import ForwardDefaults
from vfastml.text_engine.prompt_encoder import PromptEncoder
from vfastml.text_engine.request_encoder import RequestEncoder

CHAT: dict[str, Any] = {"messages": "hi"}
TEXT: dict[str, Any] = {"prompt": "hi"}
INPUT: dict[str, Any] = {"input": "hi"}
MESSAGES: dict[str, Any] = {"messages": [{"role": "user", "content": "hi"}], "max_tokens": 4}
BODIES = {
    "/v1/chat/completions": CHAT,
    "/v1/completions": TEXT,
    "/v1/responses": INPUT,
    "/v1/messages": MESSAGES,
    "/v1/messages/count_tokens": {"messages": MESSAGES["messages"]},
    "/tokenize": CHAT,
    "/apply-template": CHAT,
    "/detokenize": {"tokens": [1]},
}


def functions(count: int) -> list[Any]:
    return [{"type": "function", "function": {"name": f"f{number}"}} for number in range(count)]


def flat_functions(count: int) -> list[Any]:
    return [{"type": "function", "name": f"f{number}"} for number in range(count)]


def inputs_of(count: int) -> list[Any]:
    return [{"name": f"f{number}", "input_schema": {"type": "object"}} for number in range(count)]


def messages(count: int) -> list[Any]:
    return [{"role": "user", "content": "x"}] * count


def parts(count: int) -> list[Any]:
    return [{"role": "user", "content": [{"type": "text", "text": "x"}] * count}]


def words(count: int) -> list[str]:
    return ["x"] * count


def names(count: int) -> dict[str, str]:
    return {f"n{number}": "x" for number in range(count)}


SHARED: list[tuple[str, str, Any, Any, dict[str, Any]]] = [
    # field, what a limit is made of, at the limit, beyond it, what it needs beside it
    ("temperature", "", 2, 2.001, {}),
    ("temperature", "", 0, -0.001, {}),
    ("top_p", "", 1, 1.001, {}),
]
SAMPLED = [
    *SHARED,
    ("n", "", 128, 129, {}),
    ("best_of", "", 128, 129, {}),
    ("beam_width", "", 128, 129, {"use_beam_search": True}),
    ("num_beam_groups", "", 128, 129, {"use_beam_search": True, "beam_width": 128}),
    ("max_tokens", "", 2**31 - 1, 2**31, {}),
    ("max_completion_tokens", "", 2**31 - 1, 2**31, {}),
    ("min_tokens", "", 2**31 - 1, 2**31, {"max_tokens": 2**31 - 1}),
    ("prompt_logprobs", "", 20, 21, {}),
    ("stop", "strings", words(16), words(17), {}),
    ("stop", "characters", "x" * 1024, "x" * 1025, {}),
    ("stop_token_ids", "", [1] * 128, [1] * 129, {}),
    ("bad_words", "words", words(256), words(257), {}),
    ("bad_words", "characters", ["x" * 1024], ["x" * 1025], {}),
    ("logit_bias", "entries", {str(token): 1 for token in range(300)}, {str(token): 1 for token in range(301)}, {}),
    ("logit_bias", "values", {"1": 100}, {"1": 100.1}, {}),
    ("allowed_token_ids", "", [1] * (1 << 18), [1] * ((1 << 18) + 1), {}),
    ("frequency_penalty", "", 2, 2.1, {}),
    ("presence_penalty", "", -2, -2.1, {}),
    ("repetition_penalty", "", 2, 2.1, {}),
    ("top_k", "", 2**31 - 1, 2**31, {}),
    ("seed", "", 2**63 - 1, 2**63, {}),
    ("deadline_s", "", 86400, 86401, {}),
    ("cache_salt", "", "x" * 512, "x" * 513, {}),
    ("model", "", "x" * 512, "x" * 513, {}),
]
OF_PROMPTS = [
    ("tools", "", functions(128), functions(129), {}),
    ("messages", "messages", messages(4096), messages(4097), {}),
    ("messages", "parts", parts(4096), parts(4097), {}),
    ("documents", "", [{"a": "b"}] * 128, [{"a": "b"}] * 129, {}),
    ("chat_template_kwargs", "", names(32), names(33), {}),
    ("reasoning_effort", "", "x" * 32, "x" * 33, {}),
]
FIELDS = {
    "/v1/chat/completions": [*SAMPLED, *OF_PROMPTS, ("top_logprobs", "", 20, 21, {"logprobs": True})],
    "/v1/completions": [
        *SAMPLED,
        ("logprobs", "", 20, 21, {}),
        ("prompt", "prompts", words(128), words(129), {}),
        ("n", "prompts times n", 2, 3, {"prompt": words(128)}),
        ("best_of", "prompts times best_of", 2, 3, {"prompt": words(128)}),
        ("beam_width", "prompts times beam_width", 64, 65, {"prompt": words(4), "use_beam_search": True}),
        ("prompt", "tokens", [1] * (1 << 20), [1] * ((1 << 20) + 1), {}),
    ],
    "/v1/responses": [
        *SHARED,
        ("max_output_tokens", "", 2**31 - 1, 2**31, {}),
        ("top_logprobs", "", 20, 21, {}),
        ("tools", "", flat_functions(128), flat_functions(129), {}),
        ("input", "items", messages(4096), messages(4097), {}),
        ("metadata", "entries", names(16), names(17), {}),
        ("metadata", "characters", {"a": "x" * 512}, {"a": "x" * 513}, {}),
        ("stop", "", words(16), words(17), {}),
        ("beam_width", "", 128, 129, {"use_beam_search": True}),
        ("include", "", ["file_search_call.results"] * 16, ["file_search_call.results"] * 17, {}),
    ],
    "/v1/messages": [
        *SHARED,
        ("max_tokens", "", 2**31 - 1, 2**31, {}),
        ("stop_sequences", "strings", words(16), words(17), {}),
        ("stop_sequences", "characters", ["x" * 1024], ["x" * 1025], {}),
        ("messages", "", messages(4096), messages(4097), {}),
        ("tools", "", inputs_of(128), inputs_of(129), {}),
    ],
    "/v1/messages/count_tokens": [
        ("messages", "", messages(4096), messages(4097), {}),
        ("tools", "", inputs_of(128), inputs_of(129), {}),
    ],
    "/tokenize": OF_PROMPTS,
    "/apply-template": OF_PROMPTS,
    "/detokenize": [("tokens", "", [1] * (1 << 20), [1] * ((1 << 20) + 1), {})],
}
CASES = [(path, *case) for path, cases in FIELDS.items() for case in cases]


@pytest.mark.rule("S5")
@pytest.mark.parametrize(
    ("path", "field", "what", "most", "more", "beside"), CASES, ids=[f"{case[0]} {case[1]} {case[2]}" for case in CASES]
)
async def test_each_field_at_its_limit_and_beyond(
    client: httpx.AsyncClient,  # noqa: F811
    path: str,
    field: str,
    what: str,
    most: Any,
    more: Any,
    beside: dict[str, Any],
) -> None:
    taken = await client.post(path, json={**BODIES[path], **beside, field: most})
    assert taken.status_code == 200, taken.text
    refused = await client.post(path, json={**BODIES[path], **beside, field: more})
    assert refused.status_code == 400
    assert len(refused.content) < 600
    message = refused.json()["error"]["message"]
    assert field in message


WIDE = Limits(max_model_len=1 << 21, max_num_seqs=256)


@pytest.fixture(scope="module")
def encoder() -> RequestEncoder:
    return RequestEncoder(PromptEncoder(byte_tokenizer()), WIDE, ForwardDefaults())


def request_of(sampling: dict[str, Any], fields: dict[str, Any]) -> TextGenerationReq:
    given = {"prompt_token_ids": [1], "stream": False, **fields}
    return TextGenerationReq(request_id="r", sampling=SamplingParams(**sampling), **given)


PRODUCTS: dict[str, tuple[dict[str, Any], dict[str, Any], str]] = {
    # what is asked for comes to exactly the limit; the last one says which of the sampling fields is raised by one
    "n": ({"max_tokens": 1 << 20}, {"n": 4}, "max_tokens"),
    "n and alternatives": ({"max_tokens": 1 << 15, "logprobs": 15}, {"n": 8}, "max_tokens"),
    "alternatives": ({"max_tokens": 1 << 19, "logprobs": 7}, {}, "logprobs"),
    "best_of": ({"max_tokens": 1 << 19}, {"n": 1, "best_of": 8}, "max_tokens"),
    "beams": ({"max_tokens": 1 << 18}, {"beams": BeamSearch(16)}, "max_tokens"),
    "prompts": ({"max_tokens": 1 << 15}, {"num_prompts": 128}, "max_tokens"),
    "prompts, n and alternatives": ({"max_tokens": 1 << 12, "logprobs": 3}, {"num_prompts": 64, "n": 4}, "max_tokens"),
    "prompt's alternatives": ({"max_tokens": 0, "prompt_logprobs": 7}, {"prompt_token_ids": [1] * (1 << 19)}, "prompt"),
    "n echoes": ({"max_tokens": 0}, {"prompt_token_ids": [1] * (1 << 18), "n": 16, "echo": True}, "prompt"),
}


@pytest.mark.rule("S5")
@pytest.mark.parametrize("name", PRODUCTS)
def test_what_they_multiply_to_at_its_limit_and_beyond(encoder: RequestEncoder, name: str) -> None:
    sampling, fields, raised = PRODUCTS[name]
    assert answer_size(encoder.encode(request_of(sampling, fields))) == MAX_ANSWER_TOKENS
    if raised == "prompt":
        fields = {**fields, "prompt_token_ids": [*fields["prompt_token_ids"], 1]}
    else:
        sampling = {**sampling, raised: sampling[raised] + 1}
    with pytest.raises(InvalidRequestError) as refused:
        encoder.encode(request_of(sampling, fields))
    assert refused.value.param == "max_tokens"
    assert all(word in refused.value.message for word in ("prompts", "'n'", "'max_tokens'", "'prompt_logprobs'"))


@pytest.mark.rule("S5")
def test_what_is_asked_for_beyond_the_context_does_not_count(encoder: RequestEncoder) -> None:
    narrow = RequestEncoder(PromptEncoder(byte_tokenizer()), Limits(2048, 8), ForwardDefaults())
    assert narrow.encode(request_of({"max_tokens": 2**31 - 1, "logprobs": 20}, {"n": 8})).sampling.max_tokens == 2047
    with pytest.raises(InvalidRequestError):
        encoder.encode(request_of({"max_tokens": 2**31 - 1, "logprobs": 20}, {}))


@pytest.mark.rule("S5")
async def test_a_model_server_is_told_how_many_prompts_there_are(engine: FakeDispatchEngine) -> None:  # noqa: F811
    async with client_of(Gateway(dispatch_engine=engine)) as asking:
        await asking.post("/v1/completions", json={"prompt": ["a", "b", "c"]})
    assert [request.num_prompts for request in engine.requests] == [3, 3, 3]


@pytest.mark.rule("S5")
@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity", "1e400", "-1e400"])
@pytest.mark.parametrize("field", ["temperature", "top_p", "deadline_s", "presence_penalty"])
async def test_numbers_are_finite(client: httpx.AsyncClient, field: str, number: str) -> None:  # noqa: F811
    for path in ("/v1/chat/completions", "/v1/completions"):
        body = f'{{"messages": "x", "prompt": "x", "{field}": {number}}}'
        assert (await client.post(path, content=body.encode())).status_code == 400
