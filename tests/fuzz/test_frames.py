"""Whatever comes over the wire: it is refused, or understood and then refused or answered. Nothing else is raised."""

from __future__ import annotations

import contextlib
from random import Random

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.fuzz.frame_cases import reply_frame, request_frame
from tests.tiny_models import byte_tokenizer
from vfastml.engine.dispatch_engine import DispatchEngine
from vfastml.engine.dispatch_replies import Limits
from vfastml.engine.dispatch_requests import TextGenerationReq, TokenizeReq
from vfastml.engine.wire import DamagedError, decode_reply, decode_request, encode_reply, encode_request, opened
from vfastml.errors import UserError
from vfastml.text_engine.forward_defaults import ForwardDefaults
from vfastml.text_engine.prompt_encoder import PromptEncoder
from vfastml.text_engine.request_encoder import RequestEncoder

SEEDS = st.integers(min_value=0, max_value=1 << 32)
ENDPOINT = "tcp://127.0.0.1:1"
LIMITS = Limits(max_model_len=128, max_num_seqs=16)
light = settings(max_examples=500, deadline=None)


@pytest.mark.rule("S1")
@light
@given(SEEDS)
def test_what_is_understood_can_be_said_again(seed: int) -> None:
    rng = Random(seed)
    with contextlib.suppress(msgspec.DecodeError):
        request = decode_request(request_frame(rng, "r"))
        again = encode_request(request)
        assert encode_request(decode_request(again)) == again
    with contextlib.suppress(msgspec.DecodeError):
        again = encode_reply(decode_reply(reply_frame(rng, "r")))
        assert encode_reply(decode_reply(again)) == again


@pytest.mark.rule("S1")
@light
@given(st.binary(max_size=300))
def test_any_bytes(frame: bytes) -> None:
    for decode in (decode_request, decode_reply):
        with contextlib.suppress(msgspec.DecodeError):
            decode(frame)


@pytest.fixture(scope="module")
def request_encoder() -> RequestEncoder:
    return RequestEncoder(PromptEncoder(byte_tokenizer()), LIMITS, ForwardDefaults())


@pytest.mark.rule("S1")
def test_a_model_server_encodes_or_refuses(request_encoder: RequestEncoder) -> None:
    encoded = 0

    @light
    @given(SEEDS)
    def check_one(seed: int) -> None:
        nonlocal encoded
        with contextlib.suppress(msgspec.DecodeError, UserError):
            request = decode_request(request_frame(Random(seed), "r"))
            if isinstance(request, TokenizeReq):
                request_encoder.tokenized(request)
            elif isinstance(request, TextGenerationReq):
                work = request_encoder.encode(request)
                encoded += 1
                assert 1 <= work.sampling.max_tokens <= LIMITS.max_model_len - len(work.prompt_tokens)
                assert 1 <= work.num_choices <= LIMITS.max_num_seqs

    check_one()
    assert encoded > 20


@pytest.mark.rule("S1")
@settings(max_examples=200, deadline=None)
@given(st.lists(SEEDS, max_size=20))
async def test_a_gateway_takes_any_replies(seeds: list[int]) -> None:
    engine = DispatchEngine([ENDPOINT])
    for seed in seeds:
        frame = reply_frame(Random(seed), "r")
        with contextlib.suppress(DamagedError):  # it would end the session, and there is none
            opened(frame)
            engine.on_frame(ENDPOINT, frame)
    assert len(engine.servers()) == 1
    assert engine.startup() is not None
