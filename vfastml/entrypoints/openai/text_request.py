"""What the bodies of chat and completions share: choices, streaming, what is reported."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar

from pydantic import BaseModel, ConfigDict, Field, model_validator

from vfastml.entrypoints.limits import MAX_CHOICES
from vfastml.entrypoints.openai.api_request import Name
from vfastml.entrypoints.openai.beam_fields import BeamFields
from vfastml.entrypoints.openai.constraint_fields import ConstraintFields
from vfastml.entrypoints.openai.control_fields import ControlFields
from vfastml.entrypoints.openai.sampling_fields import INT32_MAX, NumLogprobs, SamplingFields, TokenCount
from vfastml.errors import InvalidRequestError


class StreamOptions(BaseModel):
    """Looked at only when the answer is streamed."""

    model_config = ConfigDict(strict=True, extra="ignore", frozen=True)

    include_usage: bool | None = None


class TextRequest(SamplingFields, BeamFields, ConstraintFields, ControlFields):
    """A body that asks for text."""

    default_max_tokens: ClassVar[int | None] = None

    max_tokens: TokenCount | None = None
    max_completion_tokens: TokenCount | None = None
    """The newer name of max_tokens; of both, the smaller counts."""
    prompt_logprobs: NumLogprobs = None
    n: Annotated[int, Field(ge=1, le=MAX_CHOICES)] | None = None
    """Choices for each prompt; by default as many as the model server was told to give."""
    best_of: Annotated[int, Field(ge=1, le=MAX_CHOICES)] | None = None
    """Choices that are generated for each prompt, of which the `n` most probable ones are answered."""
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    return_token_ids: bool | None = None
    return_tokens_as_token_ids: bool | None = None
    """Logprobs name their tokens `token_id:17` instead of by their text, which several may share."""
    cache_salt: Name | None = None
    priority: Annotated[int, Field(ge=-INT32_MAX, le=INT32_MAX)] | None = None
    """Requests with a smaller number go first."""
    truncate_prompt_tokens: Annotated[int, Field(ge=-1, le=INT32_MAX)] | None = None
    """Keep only so many of the prompt's last tokens; -1: as many as leave room for the answer."""

    @model_validator(mode="after")
    def _check_stream(self) -> TextRequest:
        if self.stream:
            if self.best_of is not None and self.best_of > (self.n or 1):
                raise _not_with_stream("best_of")
            if self.prompt_logprobs is not None:
                raise _not_with_stream("prompt_logprobs")
        return self

    def most_tokens(self) -> int | None:
        """See SamplingFields."""
        asked = [most for most in (self.max_tokens, self.max_completion_tokens) if most is not None]
        return min(asked, default=self.default_max_tokens)

    def num_prompt_logprobs(self) -> int | None:
        """See SamplingFields."""
        return self.prompt_logprobs

    def shared_work(self) -> dict[str, Any]:
        """Arguments of TextGenerationReq: all but the prompt's."""
        return {
            "model_uri": self.model,
            "sampling": self.sampling(),
            "n": self.n,
            "best_of": self.best_of,
            "beams": self.beams(self.n),
            "constraint": self.constraint(),
            "stream": bool(self.stream),
            "return_token_ids": bool(self.return_token_ids),
            "cache_salt": self.cache_salt or "",
            "priority": self.priority or 0,
            "deadline_s": self.deadline_s,
            "truncate_prompt_tokens": self.truncate_prompt_tokens,
        }

    def wants_usage_chunk(self) -> bool:
        """Whether a stream ends with a chunk that carries the usage."""
        return self.stream_options is not None and bool(self.stream_options.include_usage)


def _not_with_stream(name: str) -> InvalidRequestError:
    return InvalidRequestError(f"'{name}' cannot be used with 'stream': its answer is there at the end.", param=name)
