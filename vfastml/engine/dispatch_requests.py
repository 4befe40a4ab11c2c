"""What a gateway may ask of a model server. Fields are only ever appended, with defaults.

Every struct here crosses the wire as msgpack (see wire.py): plain values, text and bytes, never objects or tensors.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, Self

import msgspec

from vfastml.engine.repetition_detection import RepetitionDetection
from vfastml.engine.text_parameters import check_token_bounds, checked
from vfastml.errors import InvalidRequestError


class SamplingParams(msgspec.Struct, array_like=True, frozen=True, gc=False, kw_only=True):
    """How to choose the next token. None means "not asked": the model server's `model_forward_kwargs`, then the neutral
    default named here, decide."""

    max_tokens: int | None = None
    """Most tokens to generate; default and upper bound: the room left in the context. 0 only computes the prompt, for
    `prompt_logprobs`."""
    min_tokens: int | None = None
    """End tokens and stop strings are not honoured before this many tokens; default 0."""
    temperature: float | None = None
    """0 is greedy; default 1.0."""
    top_p: float | None = None
    """Keep the smallest set of tokens whose probability reaches this, 0 < top_p <= 1; default 1.0."""
    top_k: int | None = None
    """Keep this many most probable tokens; 0 keeps all; default 0."""
    seed: int | None = None
    """Same seed, same text, whatever else runs (but for rounding, in half precision); choice i of n uses a stream of
    its own. Default: drawn at random."""
    stop: tuple[str, ...] | None = None
    """Generation ends before the first of these strings; it is not part of the text. Default none."""
    ignore_eos: bool | None = None
    """Go on after an end token; default False."""
    repetition_penalty: float | None = None
    """Positive logits of tokens that the prompt or the text has already are divided by this, negative ones multiplied
    (CTRL, Keskar et al. 2019); more than 0, default 1.0."""
    logit_bias: dict[int, float] | None = None
    """Added to the logits of these token ids, -100 to 100, at most 300 of them; default none."""
    max_time: float | None = None
    """Seconds from the first step that the request is in: a choice still under way then ends with its next token, as
    at max_tokens. Default: no limit."""
    output_scores: bool | None = None
    """Fill `Delta.scores`; default False."""
    min_p: float | None = None
    """Keep tokens with at least this share of the most probable token's probability, 0 <= min_p <= 1; default 0."""
    typical_p: float | None = None
    """Keep the smallest set of tokens nearest to the distribution's entropy whose probability reaches this, 0 <
    typical_p <= 1 (Meister et al. 2022); default 1.0."""
    frequency_penalty: float | None = None
    """Taken from a token's logit for each time that the generated text has it, -2 to 2; default 0."""
    presence_penalty: float | None = None
    """Taken from a token's logit once if the generated text has it, -2 to 2; default 0."""
    allowed_token_ids: tuple[int, ...] | None = None
    """No other token is chosen; end tokens must be named too. Default: all are allowed."""
    bad_words: tuple[str, ...] | None = None
    """Words that the text never has, each of them as tokens with and without a space before it; default none."""
    stop_token_ids: tuple[int, ...] | None = None
    """Generation ends after one of these, whose text is left out; default none."""
    include_stop_str_in_output: bool | None = None
    """The stop string, or the text of the stop token, is part of the text; default False."""
    logprobs: int | None = None
    """Fill `Delta.logprobs`, with this many most probable tokens beside each chosen one, 0 to 20; default: do not."""
    prompt_logprobs: int | None = None
    """Fill `Delta.prompt_logprobs` of each choice's first delta, with this many most probable tokens beside each of the
    prompt's, 0 to 20; default: do not."""
    skip_special_tokens: bool | None = None
    """Leave special tokens out of the text; default True."""
    repetition_detection: RepetitionDetection | None = None
    """End choices that go round in circles; default: do not."""


class BeamSearch(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """Choose the most probable texts instead of single tokens, as transformers' beam search does; `n` of them are
    answered, the best first."""

    width: int
    """Beams, at least 2, in all groups together."""
    length_penalty: float = 1.0
    """A text's score is its summed log probability over its length to this power."""
    early_stopping: bool | Literal["never"] = False
    """When `width` texts have ended: True ends at once, False when no other is likely to get better, `never` when none
    can."""
    groups: int = 1
    """Diverse beam search (Vijayakumar et al. 2018): divides `width`."""
    diversity_penalty: float = 0.0
    """Taken from a token's log probability for each beam of an earlier group that has chosen it in this step."""


ConstraintKind = Literal["json_object", "json_schema", "regex", "choice", "grammar", "structural_tag"]


class Constraint(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """What a text must be; tokens that would lead elsewhere are never chosen."""

    kind: ConstraintKind
    text: str = ""
    """The schema, the list of choices or the structural tag as JSON; the regex; the grammar (EBNF, or Lark's form).
    Nothing for `json_object`."""


class ToolUse(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """Functions that the model may call."""

    tools: list[dict[str, Any]]
    """As OpenAI's chat completions describe them: {"type": "function", "function": {"name", "description",
    "parameters", "strict"}}."""
    choice: Literal["auto", "none", "required"] = "auto"
    name: str | None = None
    """With `required`: the one function that must be called."""
    parallel: bool = True
    """There may be more than one call."""


class TemplateOptions(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """How messages are rendered with the model's chat template."""

    kwargs: dict[str, Any] = {}
    """For the template. Names that the operator or the template does not know are refused."""
    add_generation_prompt: bool = True
    continue_final_message: bool = False
    """The last message is the beginning of the answer."""
    documents: list[dict[str, Any]] | None = None
    reasoning_effort: str | None = None
    """A hint, for templates that know it in some form: `none`, `low`, `medium`, `high` ..."""


class TextGenerationForward(msgspec.Struct, frozen=True, gc=False):
    """How to generate, in one value: an optional argument of TextGenerationReq, which folds it into `sampling`, `n` and
    `stream`. None means "not asked". The fields that SamplingParams has too mean the same there.

    Raises ValueError, with the field's name, for a value that no request may have.
    """

    min_tokens: int | None = None
    max_tokens: int | None = None
    max_time: float | None = None
    """Seconds."""
    num_generations: int | None = None
    """Independent choices: `n` of TextGenerationReq."""
    seed: int | None = None
    repetition_penalty: float | None = None
    temperature: float | None = None
    top_p: float | None = None
    logit_bias: dict[int, float] | None = None
    output_scores: bool | None = None
    stream: bool | None = None
    use_cache: bool | None = None
    """True or None: the cache of keys and values cannot be turned off."""

    def __post_init__(self) -> None:
        try:
            for name in self.__struct_fields__:
                value = getattr(self, name)
                if value is not None:
                    msgspec.structs.force_setattr(self, name, checked(name, value))
            check_token_bounds(self.min_tokens, self.max_tokens)
        except InvalidRequestError as error:
            raise ValueError(error.message) from None


class TextGenerationMessage(dict[str, Any]):
    """A chat message. It is the plain dict that travels and that templates see, made from its two usual parts, which
    are attributes too."""

    def __init__(self, role: str, content: Any) -> None:
        super().__init__(role=role, content=content)

    @classmethod
    def of(cls, message: Mapping[str, Any]) -> Self:
        """The same message, key for key."""
        made = cls.__new__(cls)
        made.update(message)
        return made

    @property
    def role(self) -> str:
        """`system`, `user`, `assistant` or another one that the model's template knows."""
        return str(self["role"])

    @property
    def content(self) -> Any:
        """Text, a list of text parts, or None if there is none."""
        return self.get("content")


class _Request(msgspec.Struct, array_like=True, frozen=True, gc=False, tag=True, kw_only=True):
    request_id: str
    """Unique over all gateways: use `vfastml.utils.api.gen_request_id`."""


class Join(msgspec.Struct, array_like=True, frozen=True, gc=False, tag=True):
    """A gateway opens its session: sent on every completed handshake, and each second until Hello comes back. Requests
    that the same gateway had open before are dropped: it has already failed or moved them."""

    protocol: int
    gateway_id: str


class TextGenerationReq(_Request, array_like=True, frozen=True, gc=False, tag=True, kw_only=True):
    """Generate text from exactly one of `messages`, `prompt` or `prompt_token_ids`.

    Raises ValueError where `forward_params` asks for something else than `sampling`, `n` or `stream`.
    """

    model_uri: str | None = None
    """A served name or uri; None is the only model served."""
    model_adapter_uri: str | None = None
    messages: list[dict[str, Any]] | str | None = None
    """Chat messages as dicts, of which TextGenerationMessage is one, rendered with the model's chat template; a string
    is one user message."""
    prompt: str | None = None
    prompt_token_ids: list[int] | None = None
    sampling: SamplingParams = SamplingParams()
    n: int | None = None
    """Independent choices, which share the prompt's KV blocks. None: the model server's default, else 1."""
    stream: bool = True
    """Send deltas as they are generated; False: one delta for each choice, when it ends, and only counts before it."""
    echo: bool = False
    """The text starts with the prompt."""
    return_token_ids: bool = False
    """Fill `Accepted.prompt_token_ids` and `Delta.token_ids`."""
    deadline_s: float | None = None
    """Seconds from dispatch, queueing included, after which the request fails."""
    priority: int = 0
    """Smaller runs earlier."""
    cache_salt: str = ""
    """Prefix-cache blocks are shared only between requests of the same salt."""
    forward_params: TextGenerationForward | None = None
    """Another way to say `sampling`, `n` and `stream`: what it asks for is there, and this is None, once the request is
    made."""
    best_of: int | None = None
    """Generate so many choices and answer the `n` with the highest mean log probability; not with `stream`."""
    beams: BeamSearch | None = None
    constraint: Constraint | None = None
    tool_use: ToolUse | None = None
    """For `messages` only."""
    template: TemplateOptions = TemplateOptions()
    """For `messages` only."""
    add_special_tokens: bool = True
    """For `prompt` only: chat templates write their own."""
    truncate_prompt_tokens: int | None = None
    """Keep only so many of the prompt's last tokens; -1: as many as the context can take."""
    suffix: str | None = None
    """For `prompt` only: what comes after the text that is asked for, where the model was trained to fill in."""
    splits_reasoning: bool = False
    """What the model thinks goes into `Delta.reasoning` instead of `Delta.text`, where it marks it."""
    handles: list[str] = []
    """Any of them stops it, by CancelByHandleReq. Before it is dispatched: names, of which dispatching makes them."""
    share: str = ""
    """Requests of one share have their part of a busy model together, whatever their number."""
    share_weight: float = 1.0
    """How large that part is, beside others; positive."""
    is_traced: bool = False
    """Fill `Finished.marks`."""
    num_prompts: int = 1
    """How many requests like this one are parts of one answer: what it may come to is bounded for all of them."""

    def __post_init__(self) -> None:
        if self.forward_params is not None:
            for name, value in _folded(self, self.forward_params).items():
                msgspec.structs.force_setattr(self, name, value)


class TokenizeReq(_Request, array_like=True, frozen=True, gc=False, tag=True, kw_only=True):
    """Token ids of a prompt or of rendered messages. Answered by `Tokenized`."""

    model_uri: str | None = None
    prompt: str | None = None
    messages: list[dict[str, Any]] | str | None = None
    add_special_tokens: bool = True
    """For `prompt` only: chat templates write their own."""
    template: TemplateOptions = TemplateOptions()
    """For `messages` only."""
    tools: list[dict[str, Any]] = []
    """For `messages` only: described to the model as those of ToolUse are."""
    with_text: bool = False
    """Fill `Tokenized.text`."""


class DetokenizeReq(_Request, array_like=True, frozen=True, gc=False, tag=True, kw_only=True):
    """Text of token ids. Answered by `Detokenized`."""

    model_uri: str | None = None
    tokens: list[int] = []


class OneShotReq(_Request, array_like=True, frozen=True, gc=False, tag=True, kw_only=True):
    """One call of a one-shot model server's `forward`. `inputs` are plain msgpack values (numbers, text, bytes, lists,
    dicts) that the server's author defines. Answered by `Output`."""

    model_uri: str | None = None
    inputs: Any = None
    share: str = ""
    """Requests of one share have their part of a busy model together, whatever their number."""
    share_weight: float = 1.0
    """How large that part is, beside others; positive."""


class ImageToImageReq(_Request, array_like=True, frozen=True, gc=False, tag=True, kw_only=True):
    """Make images from images, by a one-shot model server, whose `forward` gets the dict
    `{"images": [...], "forward_params": {...}}`. Answered by `Output`.

    Raises ValueError for an image that is neither bytes nor text.
    """

    model_uri: str | None = None
    model_adapter_uri: str | None = None
    images: list[Any]
    """Bytes or text each. What text means (base64, a data URI) is for the server's author to say: nothing here looks at
    it, and no address in it is ever fetched."""
    forward_params: dict[str, Any] | None = None
    """Plain msgpack values that the server's author defines."""
    share: str = ""
    """Requests of one share have their part of a busy model together, whatever their number."""
    share_weight: float = 1.0
    """How large that part is, beside others; positive."""

    def __post_init__(self) -> None:
        if not isinstance(self.images, list) or not all(isinstance(image, bytes | str) for image in self.images):
            raise ValueError("'images' must be a list of bytes or strings")


class CancelReq(_Request, array_like=True, frozen=True, gc=False, tag=True, kw_only=True):
    """Stop working on that request; unknown ids are ignored. No answer."""


class CancelByHandleReq(_Request, array_like=True, frozen=True, gc=False, tag=True, kw_only=True):
    """Stop all requests that have this handle, of whichever gateway: each fails there as cancelled. Answered by
    `CancelResult`."""

    handle: str


WorkReq = TextGenerationReq | TokenizeReq | DetokenizeReq | OneShotReq | ImageToImageReq
"""What can be dispatched: each gets exactly one terminal reply."""

ComputedReq = TextGenerationReq | OneShotReq | ImageToImageReq
"""Those that wait for the model's time."""

Request = Join | WorkReq | CancelReq | CancelByHandleReq
"""All that travels from gateway to model server."""


def _folded(request: TextGenerationReq, forward: TextGenerationForward) -> dict[str, Any]:
    """The fields of `request` that change when `forward` becomes part of it."""
    sampling = {
        name: _agreed(name, getattr(request.sampling, name), getattr(forward, name, None))
        for name in SamplingParams.__struct_fields__
    }
    return {
        "sampling": SamplingParams(**sampling),
        "n": _agreed("num_generations", request.n, forward.num_generations),
        # True is also what a request has that says nothing.
        "stream": _agreed("stream", None if request.stream else False, forward.stream) is not False,
        "forward_params": None,
    }


def _agreed(name: str, asked: Any, forward: Any) -> Any:
    if asked is not None and forward is not None and asked != forward:
        raise ValueError(f"'{name}' of forward_params contradicts what the request asks for itself")
    return asked if forward is None else forward
