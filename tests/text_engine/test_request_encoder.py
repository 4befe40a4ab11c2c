"""What the model server makes of a request, and what it refuses by name."""

from __future__ import annotations

from typing import Any

import pytest

from tests.tiny_models import byte_tokenizer
from vfastml.engine.dispatch_replies import Limits
from vfastml.engine.dispatch_requests import (
    BeamSearch,
    Constraint,
    SamplingParams,
    TemplateOptions,
    TextGenerationReq,
    ToolUse,
)
from vfastml.engine.repetition_detection import RepetitionDetection
from vfastml.errors import InvalidRequestError, UnsupportedError, UserError
from vfastml.text_engine.encoded_request import EncodedRequest
from vfastml.text_engine.forward_defaults import ForwardDefaults
from vfastml.text_engine.prompt_encoder import PromptEncoder
from vfastml.text_engine.request_encoder import RequestEncoder

LIMITS = Limits(64, 8, 64, 40, 16)
CHAT = {"prompt": None, "messages": "hi"}
TOOLS = [{"type": "function", "function": {"name": "f"}}]


def encoder(**defaults: Any) -> RequestEncoder:
    return RequestEncoder(PromptEncoder(byte_tokenizer()), LIMITS, ForwardDefaults(SamplingParams(**defaults), 1))


def encode(sampling: dict[str, Any] | None = None, **fields: Any) -> EncodedRequest:
    given = {"prompt": "hello", "stream": False, **fields}
    return encoder().encode(TextGenerationReq(request_id="r", sampling=SamplingParams(**(sampling or {})), **given))


@pytest.mark.parametrize(
    ("fields", "sampling", "param"),
    [
        ({"n": 0}, {}, "n"),
        ({"share_weight": 0.0}, {}, "share_weight"),
        ({"share_weight": float("nan")}, {}, "share_weight"),
        ({"share_weight": float("inf")}, {}, "share_weight"),
        ({"n": 9}, {}, "n"),
        ({"n": 3, "best_of": 2}, {}, "best_of"),
        ({"best_of": 9}, {}, "best_of"),
        ({"best_of": 2, "stream": True}, {}, "best_of"),
        ({"beams": BeamSearch(1)}, {}, "beam_width"),
        ({"beams": BeamSearch(9)}, {}, "beam_width"),
        ({"beams": BeamSearch(2), "n": 3}, {}, "n"),
        ({"beams": BeamSearch(4, groups=3)}, {}, "num_beam_groups"),
        ({"beams": BeamSearch(4, groups=0)}, {}, "num_beam_groups"),
        ({"beams": BeamSearch(4, length_penalty=11.0)}, {}, "length_penalty"),
        ({"beams": BeamSearch(4, length_penalty=float("nan"))}, {}, "length_penalty"),
        ({"beams": BeamSearch(4, diversity_penalty=-1.0)}, {}, "diversity_penalty"),
        ({"beams": BeamSearch(4), "best_of": 4}, {}, "best_of"),
        ({"beams": BeamSearch(4)}, {"max_tokens": 0}, "max_tokens"),
        ({"beams": BeamSearch(4)}, {"repetition_detection": RepetitionDetection(3)}, "repetition_detection"),
        ({"truncate_prompt_tokens": 0}, {}, "truncate_prompt_tokens"),
        ({"truncate_prompt_tokens": 65}, {}, "truncate_prompt_tokens"),
        ({}, {"logit_bias": {10**6: 1.0}}, "logit_bias"),
        ({}, {"allowed_token_ids": (10**6,)}, "allowed_token_ids"),
        ({}, {"stop_token_ids": (-1,)}, "stop_token_ids"),
        ({"prompt": "x" * 64}, {}, "prompt"),
        ({"prompt": "x" * 65}, {"max_tokens": 0}, "prompt"),
        ({"tool_use": ToolUse(TOOLS)}, {}, "tools"),
        ({**CHAT, "tool_use": ToolUse([{"type": "function"}])}, {}, "tools"),
        ({**CHAT, "tool_use": ToolUse(TOOLS, "required", "g")}, {}, "tool_choice"),
        ({**CHAT, "template": TemplateOptions({"a": 1})}, {}, "chat_template_kwargs"),
    ],
)
def test_refused_by_name(fields: dict[str, Any], sampling: dict[str, Any], param: str) -> None:
    with pytest.raises(InvalidRequestError) as refused:
        encode(sampling, **fields)
    assert refused.value.param == param


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"suffix": "end"}, "suffix"),
        ({"constraint": Constraint("json_object")}, "structured_outputs"),
        ({**CHAT, "tool_use": ToolUse(TOOLS, "required"), "truncate_prompt_tokens": 9}, "tool_choice"),
        ({**CHAT, "template": TemplateOptions(documents=[{}])}, "documents"),
        ({"model_adapter_uri": "a"}, "model_adapter_uri"),
    ],
)
def test_what_is_not_done_is_not_passed_over(fields: dict[str, Any], param: str) -> None:
    with pytest.raises(UnsupportedError) as refused:
        encode(**fields)
    assert refused.value.param == param


def test_defaults_that_the_model_cannot_keep() -> None:
    with pytest.raises(UserError, match="model_forward_kwargs: 'stop_token_ids'"):
        encoder(stop_token_ids=(10**6,))


def test_prompt_that_fills_the_context_can_be_read() -> None:
    encoded = encode({"max_tokens": 0}, prompt="x" * 64)
    assert (len(encoded.prompt_tokens), encoded.sampling.max_tokens) == (64, 0)


@pytest.mark.parametrize(
    ("keep", "max_tokens", "kept"), [(3, 5, 3), (64, 0, 64), (-1, 5, 59), (-1, None, 48), (-1, 0, 64), (-1, 99, 48)]
)
def test_last_tokens_of_a_long_prompt(keep: int, max_tokens: int | None, kept: int) -> None:
    text = "".join(chr(97 + place % 26) for place in range(500))
    encoded = encode({"max_tokens": max_tokens}, prompt=text, truncate_prompt_tokens=keep)
    whole = PromptEncoder(byte_tokenizer()).encode_text(text, max_tokens=500)
    assert encoded.prompt_tokens == whole[-kept:]


def test_bad_words_become_tokens_with_and_without_a_space() -> None:
    encode_text = PromptEncoder(byte_tokenizer()).encode_text
    barred = encode({"bad_words": ("no", " yes")}).sampling.barred_tokens
    spellings = ("no", " no", " yes")
    assert set(barred) == {tuple(encode_text(one, max_tokens=9, add_special_tokens=False)) for one in spellings}


def test_best_of_generates_more_than_it_answers() -> None:
    encoded = encode(n=2, best_of=5)
    assert (encoded.num_choices, encoded.num_answers, encoded.sampling.is_ranked) == (5, 2, True)
    assert encoded.accepted().num_choices == 2
    same = encode(n=2, best_of=2, stream=True)
    assert (same.num_choices, same.num_answers, same.sampling.is_ranked) == (2, None, False)


@pytest.mark.rule("S5")
def test_beams_count_with_all_that_they_may_write() -> None:
    encoded = encode({"max_tokens": 10}, beams=BeamSearch(4), n=2)
    assert encoded.num_tokens == len(encoded.prompt_tokens) + 40
