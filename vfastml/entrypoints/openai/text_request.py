"""What the bodies of chat and completions share: sampling, choices, streaming."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, PlainValidator, model_validator

from vfastml.engine.dispatch_requests import SamplingParams
from vfastml.engine.text_parameters import MAX_BIASED_TOKENS, check_token_bounds
from vfastml.entrypoints.limits import MAX_CHOICES, MAX_NAME_CHARS, MAX_STOP_CHARS, MAX_STOP_STRINGS
from vfastml.entrypoints.openai.unsupported_fields import NeutralValues, refuse_unsupported

_INT64 = 1 << 63
_INT32_MAX = (1 << 31) - 1
_INT32_DIGITS = 10
_TOP_K_OFF = -1
_LARGEST_BIAS = 100

TokenCount = Annotated[int, Field(ge=1, le=_INT32_MAX)]
Name = Annotated[str, Field(max_length=MAX_NAME_CHARS)]


def _as_list(value: Any) -> Any:
    return [value] if isinstance(value, str) else value


StopStrings = Annotated[
    list[Annotated[str, Field(min_length=1, max_length=MAX_STOP_CHARS)]],
    Field(max_length=MAX_STOP_STRINGS),
    BeforeValidator(_as_list, json_schema_input_type=str | list[str]),
]


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


class ApiRequest(BaseModel):
    """A body. Strict: "5" is not a number, true is not one either. Unknown fields are ignored, except those of
    `unsupported`, which raise UnsupportedError at a value that asks for something."""

    model_config = ConfigDict(strict=True, allow_inf_nan=False, extra="ignore", frozen=True)

    unsupported: ClassVar[NeutralValues] = {}

    model: Name | None = None
    """A served name; may be left out when only one model is served."""

    @model_validator(mode="before")
    @classmethod
    def _refuse_unsupported(cls, body: Any) -> Any:
        if isinstance(body, Mapping):
            refuse_unsupported(body, cls.unsupported)
        return body


class StreamOptions(BaseModel):
    """Looked at only when the answer is streamed."""

    model_config = ConfigDict(strict=True, extra="ignore", frozen=True)

    include_usage: bool | None = None


class TextRequest(ApiRequest):
    """Null means "not sent" in every field."""

    default_max_tokens: ClassVar[int | None] = None

    max_tokens: TokenCount | None = None
    max_completion_tokens: TokenCount | None = None
    """The newer name of max_tokens; of both, the smaller counts."""
    min_tokens: Annotated[int, Field(ge=0, le=_INT32_MAX)] | None = None
    temperature: Annotated[float, Field(ge=0, le=2)] | None = None
    top_p: Annotated[float, Field(gt=0, le=1)] | None = None
    top_k: Annotated[int, Field(ge=_TOP_K_OFF, le=_INT32_MAX)] | None = None
    """0, or -1, keeps all tokens."""
    seed: Annotated[int, Field(ge=-_INT64, lt=_INT64)] | None = None
    stop: StopStrings | None = None
    ignore_eos: bool | None = None
    repetition_penalty: Annotated[float, Field(gt=0, le=2)] | None = None
    logit_bias: LogitBias | None = None
    """Token ids, as strings, and what is added to their logits."""
    n: Annotated[int, Field(ge=1, le=MAX_CHOICES)] | None = None
    """Choices for each prompt; by default as many as the model server was told to give."""
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    return_token_ids: bool | None = None
    cache_salt: Name | None = None

    @model_validator(mode="after")
    def _check_token_bounds(self) -> TextRequest:
        check_token_bounds(self.min_tokens, self._max_tokens())
        return self

    def sampling(self) -> SamplingParams:
        """What the engine takes."""
        return SamplingParams(
            max_tokens=self._max_tokens(),
            min_tokens=self.min_tokens,
            temperature=self.temperature,
            top_p=self.top_p,
            top_k=0 if self.top_k == _TOP_K_OFF else self.top_k,
            seed=self.seed,
            stop=None if self.stop is None else tuple(self.stop),
            ignore_eos=self.ignore_eos,
            repetition_penalty=self.repetition_penalty,
            logit_bias=self.logit_bias,
        )

    def wants_usage_chunk(self) -> bool:
        """Whether a stream ends with a chunk that carries the usage."""
        return self.stream_options is not None and bool(self.stream_options.include_usage)

    def _max_tokens(self) -> int | None:
        asked = [most for most in (self.max_tokens, self.max_completion_tokens) if most is not None]
        return min(asked, default=self.default_max_tokens)
