"""The fields of a body that say how tokens are chosen, and where a text ends."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, PlainValidator, model_validator

from vfastml.engine.dispatch_requests import SamplingParams
from vfastml.engine.repetition_detection import RepetitionDetection
from vfastml.engine.text_parameters import (
    MAX_BAD_WORDS,
    MAX_BIASED_TOKENS,
    MAX_LOGPROBS,
    MAX_STOP_TOKENS,
    check_token_bounds,
    checked,
)
from vfastml.entrypoints.collection_bound import AtMost
from vfastml.entrypoints.limits import MAX_ALLOWED_TOKENS, MAX_STOP_CHARS, MAX_STOP_STRINGS
from vfastml.entrypoints.openai.api_request import ApiRequest

_INT64 = 1 << 63
INT32_MAX = (1 << 31) - 1
_INT32_DIGITS = 10
_TOP_K_OFF = -1
_LARGEST_BIAS = 100

TokenCount = Annotated[int, Field(ge=1, le=INT32_MAX)]
TokenId = Annotated[int, Field(ge=0, le=INT32_MAX)]
Penalty = Annotated[float, Field(ge=-2, le=2)]
Text = Annotated[str, Field(min_length=1, max_length=MAX_STOP_CHARS)]


def _as_list(value: Any) -> Any:
    return [value] if isinstance(value, str) else value


StopStrings = Annotated[
    list[Text],
    AtMost(MAX_STOP_STRINGS),
    BeforeValidator(_as_list, json_schema_input_type=str | list[str]),
]


def _false_as_none(value: Any) -> Any:
    return None if value is False else value


NumLogprobs = Annotated[Annotated[int, Field(ge=0, le=MAX_LOGPROBS)] | None, BeforeValidator(_false_as_none)]
"""How many alternatives to report of each token."""


def _as_logit_bias(value: Any) -> dict[int, float]:
    if not isinstance(value, dict) or not all(map(_is_token_id, value)):
        raise ValueError("must be an object whose keys are token ids")
    if len(value) > MAX_BIASED_TOKENS:
        raise ValueError(f"there may be at most {MAX_BIASED_TOKENS} entries")
    # Types are compared exactly, because a bool is an int.
    if not all(type(bias) in (int, float) and -_LARGEST_BIAS <= bias <= _LARGEST_BIAS for bias in value.values()):
        raise ValueError(f"each value must be a number between -{_LARGEST_BIAS} and {_LARGEST_BIAS}")
    return {int(token): float(bias) for token, bias in value.items()}


def _is_token_id(key: str) -> bool:
    """A whole number as it is usually written, so that no two keys are one token."""
    return key.isascii() and key.isdecimal() and len(key) <= _INT32_DIGITS and str(int(key)) == key


LogitBias = Annotated[dict[int, float], PlainValidator(_as_logit_bias, json_schema_input_type=dict[str, float])]


class RepetitionFields(BaseModel):
    """Ends a text that goes round in circles; an empty object, or sizes of 0, ask for nothing."""

    model_config = ConfigDict(strict=True, extra="ignore", frozen=True)

    max_pattern_size: int = 0
    """The longest circle that is looked for, in tokens."""
    min_pattern_size: int = 1
    min_count: int = 2
    """How often it must have been gone round."""

    def to_wire(self) -> RepetitionDetection | None:
        """What the engine takes. Raises InvalidRequestError for sizes that make no sense."""
        if not self.max_pattern_size:
            return None
        detection = RepetitionDetection(self.max_pattern_size, max(1, self.min_pattern_size), self.min_count)
        found: RepetitionDetection = checked("repetition_detection", detection)
        return found


class SamplingFields(ApiRequest):
    """See SamplingParams for what each field does."""

    min_tokens: Annotated[int, Field(ge=0, le=INT32_MAX)] | None = None
    temperature: Annotated[float, Field(ge=0, le=2)] | None = None
    top_p: Annotated[float, Field(gt=0, le=1)] | None = None
    top_k: Annotated[int, Field(ge=_TOP_K_OFF, le=INT32_MAX)] | None = None
    """0, or -1, keeps all tokens."""
    min_p: Annotated[float, Field(ge=0, le=1)] | None = None
    typical_p: Annotated[float, Field(gt=0, le=1)] | None = None
    seed: Annotated[int, Field(ge=-_INT64, lt=_INT64)] | None = None
    stop: StopStrings | None = None
    stop_token_ids: Annotated[list[TokenId], AtMost(MAX_STOP_TOKENS)] | None = None
    include_stop_str_in_output: bool | None = None
    ignore_eos: bool | None = None
    repetition_penalty: Annotated[float, Field(gt=0, le=2)] | None = None
    frequency_penalty: Penalty | None = None
    presence_penalty: Penalty | None = None
    logit_bias: LogitBias | None = None
    """Token ids, as strings, and what is added to their logits."""
    allowed_token_ids: Annotated[list[TokenId], AtMost(MAX_ALLOWED_TOKENS)] | None = None
    bad_words: Annotated[list[Text], AtMost(MAX_BAD_WORDS)] | None = None
    skip_special_tokens: bool | None = None
    repetition_detection: RepetitionFields | None = None

    @model_validator(mode="after")
    def _check_token_bounds(self) -> SamplingFields:
        check_token_bounds(self.min_tokens, self.most_tokens())
        return self

    def sampling(self) -> SamplingParams:
        """What the engine takes."""
        detection = self.repetition_detection
        return SamplingParams(
            max_tokens=self.most_tokens(),
            min_tokens=self.min_tokens,
            temperature=self.temperature,
            top_p=self.top_p,
            top_k=0 if self.top_k == _TOP_K_OFF else self.top_k,
            min_p=self.min_p,
            typical_p=self.typical_p,
            seed=self.seed,
            stop=None if self.stop is None else tuple(self.stop),
            stop_token_ids=None if self.stop_token_ids is None else tuple(self.stop_token_ids),
            include_stop_str_in_output=self.include_stop_str_in_output,
            ignore_eos=self.ignore_eos,
            repetition_penalty=self.repetition_penalty,
            frequency_penalty=self.frequency_penalty,
            presence_penalty=self.presence_penalty,
            logit_bias=self.logit_bias,
            # An empty list is how clients say that they name none.
            allowed_token_ids=tuple(self.allowed_token_ids) if self.allowed_token_ids else None,
            bad_words=None if self.bad_words is None else tuple(self.bad_words),
            skip_special_tokens=self.skip_special_tokens,
            repetition_detection=None if detection is None else detection.to_wire(),
            logprobs=self.num_logprobs(),
            prompt_logprobs=self.num_prompt_logprobs(),
        )

    def most_tokens(self) -> int | None:
        """To generate; None: as many as the model server allows."""
        raise NotImplementedError

    def num_logprobs(self) -> int | None:
        """Alternatives of each generated token; None: nothing is to be said about any."""
        raise NotImplementedError

    def num_prompt_logprobs(self) -> int | None:
        """The same for the prompt's tokens."""
        return None
