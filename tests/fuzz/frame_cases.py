"""Messages of the wire, in both directions: mostly sound ones in which something is wrong."""

from __future__ import annotations

from random import Random
from typing import Any

import msgspec

from tests.fuzz.damage import damaged_bytes, damaged_value, odd_text, odd_value
from tests.fuzz.http_cases import MODEL
from vfastml.engine.dispatch_replies import (
    Accepted,
    Delta,
    Detokenized,
    Failed,
    Finished,
    Goaway,
    Hello,
    Output,
    Reply,
    ServedModel,
    Status,
    StepReply,
    Tokenized,
)
from vfastml.engine.dispatch_requests import (
    CancelByHandleReq,
    CancelReq,
    DetokenizeReq,
    ImageToImageReq,
    Join,
    OneShotReq,
    Request,
    SamplingParams,
    TextGenerationForward,
    TextGenerationReq,
    TokenizeReq,
)
from vfastml.engine.wire import PROTOCOL, encode_reply, encode_request, opened, sealed

LIAR = "liar"
"""The model that a server of nothing but wrong messages says it has."""

_BIAS = {7: 2.0}
_SAMPLINGS = (
    SamplingParams(max_tokens=2),
    SamplingParams(max_tokens=3, temperature=0.0, stop=("a", "bc"), logit_bias=_BIAS),
    SamplingParams(max_tokens=2, min_tokens=1, top_p=0.5, top_k=3, seed=7, repetition_penalty=1.2, output_scores=True),
)


def request_frame(rng: Random, request_id: str) -> bytes:
    """To a model server. `request_id` is in it, unless just that is damaged."""
    return _frame(rng, encode_request(_sound_request(rng, request_id)))


def reply_frame(rng: Random, request_id: str) -> bytes:
    """To a gateway; see `request_frame`."""
    return _frame(rng, encode_reply(_sound_reply(rng, request_id)))


def damaged_greeting(rng: Random) -> bytes:
    """What a peer says first that is none: of a ZMTP greeting, at best a part."""
    greeting = b"\xff" + bytes(8) + b"\x7f\x03\x00NULL".ljust(55, b"\0") + b"\x04\x19\x05READY\x0bSocket-Type"
    return rng.choice((damaged_bytes(rng, greeting), greeting, rng.randbytes(300), b"GET / HTTP/1.1\r\n\r\n"))


def _frame(rng: Random, sound: bytes) -> bytes:
    kind = rng.random()
    if kind < 0.2:
        return sound
    if kind < 0.28:
        return damaged_bytes(rng, sound)
    if kind < 0.29:
        return sealed(damaged_bytes(rng, sound))
    if kind < 0.3:
        return rng.choice((b"", rng.randbytes(100), b"\x91" * 50_000, b"\xdd\xff\xff\xff\xff", b"\xc6\xff\xff\xff\xff"))
    tag, *fields = msgspec.msgpack.decode(opened(sound))
    damaged = damaged_value(rng, fields)
    wrong: list[Any] = [tag, *damaged] if isinstance(damaged, list) else [tag, damaged]
    return sealed(msgspec.msgpack.encode(wrong if rng.random() < 0.95 else odd_value(rng)))


def _sound_request(rng: Random, request_id: str) -> Request:
    text = odd_text(rng)[:100] or "x"
    kind = rng.randrange(10)
    if kind == 0:
        stop = rng.choice((CancelReq(request_id=request_id), CancelByHandleReq(request_id=request_id, handle="shared")))
        return rng.choice((Join(PROTOCOL, "fuzz"), stop))
    if kind == 1:
        images: list[Any] = [b"\x89PNG", text]
        return rng.choice((OneShotReq(request_id=request_id), ImageToImageReq(request_id=request_id, images=images)))
    if kind == 2:
        return DetokenizeReq(request_id=request_id, model_uri=MODEL, tokens=[rng.randrange(300) for _ in range(9)])
    messages: list[dict[str, Any]] = [
        {"role": "user", "content": text},
        {"role": "assistant", "content": [{"type": "text", "text": "b"}]},
    ]
    if kind == 3:
        return rng.choice(
            (TokenizeReq(request_id=request_id, prompt=text), TokenizeReq(request_id=request_id, messages=messages))
        )
    asked = rng.choice(({"prompt": text}, {"messages": messages}, {"prompt_token_ids": [70, 71, 72]}))
    return TextGenerationReq(
        request_id=request_id,
        model_uri=MODEL,
        sampling=rng.choice(_SAMPLINGS),
        n=rng.choice((None, 1, 2)),
        stream=rng.random() < 0.5,
        echo=rng.random() < 0.2,
        return_token_ids=rng.random() < 0.2,
        cache_salt=rng.choice(("", text)),
        handles=rng.choice(([], ["shared"], [text])),
        forward_params=rng.choice((None, None, TextGenerationForward(use_cache=True))),
        **asked,
    )


def _sound_reply(rng: Random, request_id: str) -> Reply:
    replies: tuple[Reply, ...] = (
        Hello(PROTOCOL, odd_text(rng)[:20], "text_generation", [ServedModel(LIAR, f"org/{LIAR}")]),
        Status("ready", None, 1.0, 0.0),
        Accepted(request_id, 3, [1, 2, 3], 2),
        StepReply([Delta(request_id, rng.randrange(3), "word", [5], None, None, [-0.5])]),
        StepReply([Delta(request_id, 0, "", None, "stop", "x")], [Finished(request_id)]),
        StepReply([], [Failed(request_id, "InvalidRequestError", "It is not valid.", "n", "bad", 1.0)]),
        Failed(request_id, "InternalServerTooBusyError", "Later.", None, None, 0.5),
        Tokenized(request_id, [1, 2, 3], 128),
        Detokenized(request_id, "text"),
        Output(request_id, {"score": 0.5}),
        Goaway("bye"),
    )
    return rng.choice(replies)
