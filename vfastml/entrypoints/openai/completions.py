"""POST /v1/completions."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar

from pydantic import Field, PlainValidator, model_validator
from starlette.requests import Request
from starlette.responses import Response

from vfastml.engine.dispatch_engine import DispatchEngine
from vfastml.engine.dispatch_requests import TextGenerationReq
from vfastml.engine.request_id import gen_request_id
from vfastml.entrypoints.limits import MAX_PROMPT_TOKENS, MAX_PROMPTS, MAX_TOTAL_CHOICES
from vfastml.entrypoints.openai import unsupported_fields
from vfastml.entrypoints.openai.reply_form import ReplyForm
from vfastml.entrypoints.openai.reply_styles import CompletionStyle, ReplyStyle
from vfastml.entrypoints.openai.sampling_fields import INT32_MAX, NumLogprobs
from vfastml.entrypoints.openai.text_request import TextRequest
from vfastml.entrypoints.routes import Route
from vfastml.entrypoints.text_answer import answer
from vfastml.entrypoints.validation import parse_body
from vfastml.errors import InvalidRequestError

_SHAPES = "must be a string, a list of strings, a list of token ids or a list of lists of token ids"
_TOKEN_IDS = range(1 << 31)

Prompt = str | list[int]


def _as_prompts(value: Any) -> list[Prompt]:
    if isinstance(value, str) or _is_token_ids(value):
        return [value]
    if not isinstance(value, list) or not value:
        raise ValueError(_SHAPES)
    if len(value) > MAX_PROMPTS:
        raise ValueError(f"there may be at most {MAX_PROMPTS} prompts")
    if not (all(isinstance(prompt, str) for prompt in value) or all(map(_is_token_ids, value))):
        raise ValueError(_SHAPES)
    return value


def _is_token_ids(value: Any) -> bool:
    # Types are compared exactly, because a bool is an int; min and max are quicker than a loop over a million ids.
    if not isinstance(value, list) or set(map(type, value)) != {int}:
        return False
    if len(value) > MAX_PROMPT_TOKENS:
        raise ValueError(f"there may be at most {MAX_PROMPT_TOKENS} token ids in a prompt")
    if min(value) not in _TOKEN_IDS or max(value) not in _TOKEN_IDS:
        raise ValueError("a token id is out of range")
    return True


Prompts = Annotated[
    list[Prompt],
    PlainValidator(_as_prompts, json_schema_input_type=str | list[str] | list[int] | list[list[int]]),
]


class CompletionsRequest(TextRequest):
    """The body of a completions request; `prompt` is a list of prompts once it is checked."""

    unsupported: ClassVar = unsupported_fields.COMPLETIONS
    default_max_tokens: ClassVar[int | None] = 16

    prompt: Prompts
    max_tokens: Annotated[int, Field(ge=0, le=INT32_MAX)] | None = None
    """0 only reads the prompt, which `echo` and `logprobs` say more of."""
    echo: Annotated[bool | None, Field(description="Start the text with the prompt.")] = None
    logprobs: NumLogprobs = None
    """Report the log probability of each token, and of so many most probable ones in its place."""
    add_special_tokens: bool | None = None
    """Such as one at the beginning of a text, where the model was trained with it; default true."""
    suffix: str | None = None
    """What comes after the text that is asked for, where the model was trained to fill in."""

    @model_validator(mode="after")
    def _check_total_choices(self) -> CompletionsRequest:
        most = max(self.n or 1, self.best_of or 1, self.beam_width or 1)
        if len(self.prompt) * most > MAX_TOTAL_CHOICES:
            message = f"Prompts times 'n', 'best_of' or 'beam_width' may be at most {MAX_TOTAL_CHOICES}."
            raise InvalidRequestError(message, param="n")
        return self

    def to_work(self, response_id: str) -> list[TextGenerationReq]:
        """One request for each prompt."""
        return [self._work(response_id, position, prompt) for position, prompt in enumerate(self.prompt)]

    def _work(self, response_id: str, position: int, prompt: Prompt) -> TextGenerationReq:
        return TextGenerationReq(
            request_id=f"{response_id}-{position}",
            handles=[response_id],
            prompt=prompt if isinstance(prompt, str) else None,
            prompt_token_ids=None if isinstance(prompt, str) else prompt,
            echo=bool(self.echo),
            add_special_tokens=self.add_special_tokens is not False,
            suffix=self.suffix or None,
            num_prompts=len(self.prompt),
            **self.shared_work(),
        )

    def style(self) -> ReplyStyle:
        """How the answer is worded."""
        return CompletionStyle(
            names_ids=bool(self.return_tokens_as_token_ids),
            echoes=bool(self.echo),
            shows_prompt=self.prompt_logprobs is not None,
        )

    def num_logprobs(self) -> int | None:
        """See SamplingFields."""
        return self.logprobs

    def num_prompt_logprobs(self) -> int | None:
        """What is echoed has log probabilities like what is generated."""
        if self.prompt_logprobs is None and self.echo:
            return self.num_logprobs()
        return self.prompt_logprobs


def completions_route(engine: DispatchEngine, keep_alive_s: float) -> Route:
    """The built-in route."""

    async def completions(request: Request) -> Response:
        body = parse_body(await request.body(), CompletionsRequest)
        response_id = gen_request_id("cmpl")
        work = body.to_work(response_id)
        form = ReplyForm(body, body.style(), response_id)
        return await answer(engine, form, work, stream=bool(body.stream), keep_alive_s=keep_alive_s)

    return Route("POST", "/v1/completions", completions, "Complete a text", CompletionsRequest)
