"""What the text server accepts, refuses and answers by itself, with a tiny model and no sockets."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from vfastml.engine.dispatch_replies import Accepted, Detokenized, Tokenized
from vfastml.engine.dispatch_requests import (
    DetokenizeReq,
    OneShotReq,
    SamplingParams,
    TextGenerationForward,
    TextGenerationReq,
    TokenizeReq,
    WorkReq,
)
from vfastml.errors import InvalidRequestError, UnsupportedError, VFastMLError
from vfastml.models_servers.model_server_text_hf import TextGenerationModelServerHF
from vfastml.text_engine.encoded_request import EncodedRequest
from vfastml.text_engine.engine_config import EngineConfig

MAX_LEN, MAX_SEQS, VOCAB = 64, 4, 259
DEFAULTS = {"temperature": 0.0, "top_p": 0.5, "max_tokens": 7, "stop": ["END"]}


def make_server(folder: Path, **options: Any) -> TextGenerationModelServerHF:
    config = EngineConfig(
        max_model_len=MAX_LEN, max_num_seqs=MAX_SEQS, kv_cache_memory=2_000_000, measure_limits="never"
    )
    settings: dict[str, Any] = {
        "model_load_kwargs": {"dtype": "float32"},
        "model_device": "cpu",
        "engine_config": config,
    }
    return TextGenerationModelServerHF(model_uri=str(folder), **(settings | options))


@pytest.fixture(scope="module")
def server(tiny_models: dict[str, Path]) -> TextGenerationModelServerHF:
    server = make_server(
        tiny_models["llama"], model_forward_kwargs=DEFAULTS, served_model_names=("tiny", "small", "tiny")
    )
    server.load()
    return server


def text(**fields: Any) -> TextGenerationReq:
    return TextGenerationReq(request_id="a", **fields)


def prepared(server: TextGenerationModelServerHF, **fields: Any) -> EncodedRequest:
    work = server.prepare(text(**fields))
    assert isinstance(work, EncodedRequest)
    return work


def refusal(server: TextGenerationModelServerHF, request: WorkReq) -> VFastMLError:
    with pytest.raises(VFastMLError) as caught:
        server.prepare(request)
    return caught.value


# -- prompts


def test_each_kind_of_prompt(server: TextGenerationModelServerHF) -> None:
    assert (
        prepared(server, prompt="ab").prompt_tokens
        == prepared(server, prompt_token_ids=[97 - 33, 98 - 33]).prompt_tokens
    )
    chat = prepared(server, messages=[{"role": "user", "content": "hi"}])
    assert chat.prompt_tokens == prepared(server, prompt="user: hi\nassistant:").prompt_tokens
    assert chat.prompt_tokens == prepared(server, messages="hi").prompt_tokens


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"prompt": "x", "prompt_token_ids": [1]},
        {"prompt": "x", "messages": "x"},
        {"messages": "x", "prompt_token_ids": [1]},
        {"messages": "x", "prompt": "x", "prompt_token_ids": [1]},
        {"messages": [], "prompt": ""},
    ],
)
def test_exactly_one_prompt(server: TextGenerationModelServerHF, fields: dict[str, Any]) -> None:
    assert "exactly one" in refusal(server, text(**fields)).message


@pytest.mark.parametrize("fields", [{"prompt": ""}, {"prompt_token_ids": []}])
def test_empty_prompt(server: TextGenerationModelServerHF, fields: dict[str, Any]) -> None:
    error = refusal(server, text(**fields))
    assert isinstance(error, InvalidRequestError)
    assert error.param == "prompt"


def test_prompt_must_leave_room_for_one_token(server: TextGenerationModelServerHF) -> None:
    assert prepared(server, prompt_token_ids=[1] * (MAX_LEN - 1)).sampling.max_tokens == 1
    for length in (MAX_LEN, MAX_LEN + 1, 100_000):
        for fields in ({"prompt_token_ids": [1] * length}, {"prompt": "x" * length}, {"messages": "x" * length}):
            error = refusal(server, text(**fields))
            assert error.code == "context_length_exceeded"
            assert str(MAX_LEN) in error.message


@pytest.mark.parametrize("token", [-1, VOCAB, 1 << 40])
def test_token_out_of_range(server: TextGenerationModelServerHF, token: int) -> None:
    assert refusal(server, text(prompt_token_ids=[1, token])).param == "prompt"
    assert refusal(server, DetokenizeReq(request_id="a", tokens=[token])).param == "tokens"


def test_largest_token_is_in_range(server: TextGenerationModelServerHF) -> None:
    assert prepared(server, prompt_token_ids=[0, VOCAB - 1]).prompt_tokens == [0, VOCAB - 1]


def test_message_that_the_template_refuses(server: TextGenerationModelServerHF) -> None:
    error = refusal(server, text(messages=[{"role": "robot", "content": "x"}]))
    assert (type(error), error.param) == (InvalidRequestError, "messages")


def test_echo_is_the_prompt(server: TextGenerationModelServerHF) -> None:
    assert prepared(server, prompt="ab", echo=True).echo_text == "ab"
    ids = prepared(server, prompt="ab").prompt_tokens
    assert prepared(server, prompt_token_ids=ids, echo=True).echo_text == "ab"
    assert prepared(server, prompt="ab").echo_text == ""


# -- what else a request may say


def test_adapter_is_refused(server: TextGenerationModelServerHF) -> None:
    error = refusal(server, text(prompt="x", model_adapter_uri="org/adapter"))
    assert (type(error), error.param) == (UnsupportedError, "model_adapter_uri")


def test_n_is_bounded_by_the_batch(server: TextGenerationModelServerHF) -> None:
    assert prepared(server, prompt="x", n=MAX_SEQS).num_choices == MAX_SEQS
    assert prepared(server, prompt="x").num_choices == 1
    for n in (0, -1, MAX_SEQS + 1):
        assert refusal(server, text(prompt="x", n=n)).param == "n"


def test_one_shot_request_is_refused(server: TextGenerationModelServerHF) -> None:
    assert isinstance(refusal(server, OneShotReq(request_id="a", inputs=1)), UnsupportedError)


def test_forward_kwargs_are_defaults(server: TextGenerationModelServerHF) -> None:
    sampling = prepared(server, prompt="x").sampling
    assert (sampling.temperature, sampling.top_p, sampling.max_tokens, sampling.stop) == (0.0, 0.5, 7, ("END",))
    asked = SamplingParams(temperature=1.5, top_p=1.0, max_tokens=3, stop=())
    sampling = prepared(server, prompt="x", sampling=asked).sampling
    assert (sampling.temperature, sampling.top_p, sampling.max_tokens, sampling.stop) == (1.5, 1.0, 3, ())


def test_number_of_choices_has_a_default_too(tiny_models: dict[str, Path]) -> None:
    server = make_server(tiny_models["llama"], model_forward_kwargs=TextGenerationForward(num_generations=3))
    server.load()
    assert prepared(server, prompt="x").accepted().num_choices == 3
    assert prepared(server, prompt="x", n=1).num_choices == 1


@pytest.mark.parametrize("token", [-1, VOCAB])
def test_biased_token_must_exist(server: TextGenerationModelServerHF, token: int) -> None:
    sound = SamplingParams(logit_bias={VOCAB - 1: 1.0})
    assert prepared(server, prompt="x", sampling=sound).sampling.logit_bias == {VOCAB - 1: 1.0}
    assert refusal(server, text(prompt="x", sampling=SamplingParams(logit_bias={token: 1.0}))).param == "logit_bias"


def test_bad_sampling_names_its_field(server: TextGenerationModelServerHF) -> None:
    assert refusal(server, text(prompt="x", sampling=SamplingParams(top_p=2.0))).param == "top_p"


def test_accepted_counts_the_prompt(server: TextGenerationModelServerHF) -> None:
    assert prepared(server, prompt="abc").accepted() == Accepted("a", 3)
    with_ids = prepared(server, prompt_token_ids=[4, 5], return_token_ids=True)
    assert with_ids.accepted() == Accepted("a", 2, [4, 5])


# -- answers without the model


def test_tokenize_and_back(server: TextGenerationModelServerHF) -> None:
    tokenized = server.prepare(TokenizeReq(request_id="a", prompt="héllo"))
    assert isinstance(tokenized, Tokenized)
    assert (len(tokenized.tokens), tokenized.max_model_len) == (6, MAX_LEN)
    back = server.prepare(DetokenizeReq(request_id="b", tokens=tokenized.tokens))
    assert back == Detokenized("b", "héllo")
    chat = server.prepare(TokenizeReq(request_id="a", messages="hi"))
    assert isinstance(chat, Tokenized)
    assert chat.tokens == prepared(server, messages="hi").prompt_tokens


@pytest.mark.parametrize("fields", [{}, {"prompt": "x", "messages": "x"}])
def test_tokenize_takes_exactly_one(server: TextGenerationModelServerHF, fields: dict[str, Any]) -> None:
    assert "exactly one" in refusal(server, TokenizeReq(request_id="a", **fields)).message


# -- names and settings


def test_served_names(server: TextGenerationModelServerHF, tiny_models: dict[str, Path]) -> None:
    [model] = server.served_models()
    assert (model.id, model.aliases, model.uri) == ("tiny", ["small", "llama"], str(tiny_models["llama"]))
    assert model.max_model_len == MAX_LEN


def test_hello_tells_what_was_settled(server: TextGenerationModelServerHF) -> None:
    assert server.device_and_dtype() == ("cpu", "float32")
    assert (server.limits().max_model_len, server.limits().max_num_seqs) == (MAX_LEN, MAX_SEQS)


def test_request_runs_to_its_end(server: TextGenerationModelServerHF) -> None:
    assert server.due_in_s() is None
    server.accept(prepared(server, prompt="abc", sampling=SamplingParams(max_tokens=3, ignore_eos=True)))
    server.accept(server.prepare(TextGenerationReq(request_id="b", prompt="x")))  # type: ignore[arg-type]
    server.cancel("b")
    replies: list[Any] = []
    while server.due_in_s() == 0:
        replies += server.step()
    assert {reply.request_id for reply in replies} == {"a"}
    assert replies[-1].usage.completion_tokens == 3
    load = server.current_load()
    assert (load.running, load.waiting, load.free_blocks) == (0, 0, load.total_blocks)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"model_load_kwargs": {"trust_remote_code": True}}, "does not take 'trust_remote_code' .code of a model"),
        ({"model_load_kwargs": {"dtype": "int3"}}, "int3"),
        ({"model_forward_kwargs": {"num_beams": 4}}, "unknown option 'num_beams'"),
        ({"model_forward_kwargs": {"logit_bias": {VOCAB: 1.0}}}, "model_forward_kwargs: 'logit_bias'"),
        ({"model_forward_kwargs": {"num_generations": MAX_SEQS + 1}}, f"between 1 and {MAX_SEQS}"),
        ({"model_forward_kwargs": {"top_p": "0.9"}}, "model_forward_kwargs"),
        ({"model_forward_kwargs": {"top_p": True}}, "model_forward_kwargs"),
        ({"model_forward_kwargs": {"stop": "END"}}, "model_forward_kwargs"),
        ({"model_forward_kwargs": {"max_tokens": 2.5}}, "model_forward_kwargs"),
        ({"model_forward_kwargs": {"temperature": 9}}, "'temperature'"),
        ({"model_forward_kwargs": {"temperature": float("nan")}}, "'temperature'"),
    ],
)
def test_settings_that_cannot_work_stop_the_start(
    tiny_models: dict[str, Path], options: dict[str, Any], words: str
) -> None:
    with pytest.raises(VFastMLError, match=words):
        make_server(tiny_models["llama"], **options).load()
