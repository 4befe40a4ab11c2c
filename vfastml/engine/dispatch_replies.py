"""What a model server may answer. Fields are only ever appended, with defaults.

Each request ends with exactly one terminal message: Finished, Failed, Tokenized, Detokenized or Output.
"""

from __future__ import annotations

from typing import Any, Self

import msgspec

from vfastml.errors import VFastMLError


class ServedModel(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """A model as clients name it."""

    id: str
    uri: str
    aliases: list[str] = []
    max_model_len: int | None = None
    """Most tokens of prompt and answer together."""
    created: int = 0
    """Unix seconds at which the server loaded it."""


class Limits(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """What was measured or settled when the model was loaded; zero where it does not apply."""

    max_model_len: int = 0
    max_num_seqs: int = 0
    max_num_batched_tokens: int = 0
    num_blocks: int = 0
    block_size: int = 0
    """Tokens in a KV block."""
    kv_cache_bytes: int = 0
    measured: bool = False
    """Whether steps of this model were measured on this machine; if not, the speeds below are zero."""
    tpot_ms: float = 0.0
    """Of a step in which max_num_seqs sequences get a token each, at 128 tokens of context; with longer texts a step
    takes longer."""
    decode_tokens_per_s: float = 0.0
    """Of all these sequences together, at 128 tokens of context, while nothing else runs."""
    prefill_tokens_per_s: float = 0.0
    """Of prompts, in steps of max_num_batched_tokens."""


class Hello(msgspec.Struct, array_like=True, frozen=True, gc=False, tag=True):
    """Ready for requests: a real forward pass has run. The answer to Join, or sent when loading ends."""

    protocol: int
    server_id: str
    """New at each start of the process."""
    kind: str
    """`text_generation`, or what the author of a one-shot server calls it."""
    models: list[ServedModel]
    limits: Limits = Limits()
    device: str = "cpu"
    dtype: str = ""
    decoder: str = ""
    """What computes a text model, such as `hf`: transformers' own modules."""
    version: str = ""
    """Of this package, there."""


class Load(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """How busy the server is; the counters only grow. Blocks held only by the prefix cache count as free."""

    running: int = 0
    waiting: int = 0
    free_blocks: int = 0
    total_blocks: int = 0
    open_requests: int = 0
    preemptions: int = 0
    chunked_prefills: int = 0
    """Steps' rows that computed a part of a prompt and left the rest for a later step."""
    prefix_hit_tokens: int = 0
    steps: int = 0
    prefix_query_tokens: int = 0
    """Prompt tokens that the prefix cache was asked for; prefix_hit_tokens of them were there."""
    prompt_tokens: int = 0
    """That have been computed, those of sequences that came back from preemption too."""
    generated_tokens: int = 0


class Status(msgspec.Struct, array_like=True, frozen=True, gc=False, tag=True):
    """The beat: every 200 ms, and soon after the load changed. Sent by the I/O thread even when a step hangs, so it
    says how long the current step has been under way."""

    phase: str
    """`ready`, `draining`, or what loading is busy with."""
    progress: float | None = None
    """Share of the phase that is done, 0 to 1, where it is known."""
    elapsed_s: float = 0.0
    """Since the process started."""
    step_age_s: float = 0.0
    """Since the last sign of life of the model's thread; 0 when it has nothing to do."""
    load: Load = Load()


class Usage(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """Tokens of one request, all its choices together."""

    prompt_tokens: int = 0
    completion_tokens: int = 0
    cached_tokens: int = 0
    """Prompt tokens whose KV came from the prefix cache."""
    reasoning_tokens: int = 0
    """Generated ones that went into `Delta.reasoning`."""


class Timings(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """Seconds in the model server, on its monotonic clock."""

    queued_s: float = 0.0
    first_token_s: float = 0.0
    """From arrival to the first token."""
    total_s: float = 0.0
    num_preemptions: int = 0
    """How often a choice or beam of the request lost its blocks and was computed anew."""


class Mark(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """Something that happened to a request in the engine."""

    name: str
    """`scheduled`, `prefilled`, `preempted`, `resumed`, `first_token` ..."""
    at_s: float
    """Since the request's arrival in the model server."""
    index: int = 0
    """Of the choice or beam."""
    num_tokens: int = 0
    """That it is about."""


class Accepted(msgspec.Struct, array_like=True, frozen=True, gc=False, tag=True):
    """The request is valid and in the queue: no refusal comes after this."""

    request_id: str
    prompt_tokens: int
    prompt_token_ids: list[int] | None = None
    num_choices: int = 1
    """How many choices the request gets: its `n`, or the server's default."""


class TokenLogprob(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """A token that was, or could have been, chosen."""

    token_id: int
    token: bytes
    """Its text, which need not be whole characters."""
    logprob: float
    """Natural, by the model itself: before any penalty, bias, constraint, temperature or cut. -9999.0 stands for minus
    infinity."""


class PlaceLogprobs(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """One place in a text."""

    chosen: TokenLogprob
    rank: int
    """Of the chosen one among all tokens: 1 is the most probable; 0: the first token of a text, before which there is
    nothing, has no log probability."""
    top: list[TokenLogprob] = []
    """As many as were asked for, the most probable first."""


class ToolCallPiece(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """New text of one tool call."""

    index: int
    """Of the call within its choice, from 0 on."""
    id: str = ""
    """Only in the first piece of a call."""
    name: str = ""
    """Only in the first piece of a call: whole."""
    arguments: str = ""
    """JSON text; the joined pieces of a call are one value."""


class Delta(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """New text of one choice. The last one of a choice has a finish_reason."""

    request_id: str
    index: int = 0
    text: str = ""
    token_ids: list[int] | None = None
    finish_reason: str | None = None
    """`stop`, `length` or `tool_calls`."""
    stop_reason: str | int | None = None
    """The stop string or stop token that ended it, if one did; `repetition`."""
    scores: list[float] | None = None
    """Only with `output_scores`: for each token of this delta, its natural log probability by the model itself, before
    any penalty, bias, temperature or cut."""
    logprobs: list[PlaceLogprobs] | None = None
    """One for each token of this delta; only with `logprobs` in the sampling parameters."""
    prompt_logprobs: list[PlaceLogprobs] | None = None
    """In the first delta of each choice, one for each of the prompt's tokens; only with `prompt_logprobs` in the
    sampling parameters."""
    reasoning: str = ""
    """What the model thinks, with `splits_reasoning`."""
    tool_calls: list[ToolCallPiece] | None = None
    score: float | None = None
    """Of a beam, in its last delta: see BeamSearch.length_penalty."""
    num_tokens: int = 0
    """Generated ones that this delta is made of, those without text too."""

    @property
    def only_counts(self) -> bool:
        """It has nothing of the answer: of a request that does not stream, and goes on."""
        has_text = self.text or self.finish_reason or self.reasoning or self.tool_calls
        return not (has_text or self.token_ids or self.scores or self.logprobs or self.prompt_logprobs)


class Finished(msgspec.Struct, array_like=True, frozen=True, gc=False, tag=True):
    """Terminal: every choice has ended."""

    request_id: str
    usage: Usage = Usage()
    timings: Timings = Timings()
    marks: list[Mark] = []
    """In order, for a request with `is_traced`; not more than a few hundred."""


class Failed(msgspec.Struct, array_like=True, frozen=True, gc=False, tag=True):
    """Terminal: refused, cancelled or broken. `kind` names a class of vfastml.errors."""

    request_id: str
    kind: str
    message: str
    param: str | None = None
    code: str | None = None
    retry_after_s: float | None = None

    @classmethod
    def of(cls, request_id: str, error: VFastMLError) -> Self:
        """All that the other side needs to make the same error of it."""
        return cls(request_id, error.kind, error.message, error.param, error.code, error.retry_after_s)


class StepReply(msgspec.Struct, array_like=True, frozen=True, gc=False, tag=True):
    """All that one step has for one gateway. `ended` follows the last deltas of those requests."""

    deltas: list[Delta]
    ended: list[Finished | Failed] = []


class Tokenized(msgspec.Struct, array_like=True, frozen=True, gc=False, tag=True):
    """Terminal answer to TokenizeReq."""

    request_id: str
    tokens: list[int]
    max_model_len: int
    text: str | None = None
    """The prompt, or the rendered messages; only with `with_text`."""


class Detokenized(msgspec.Struct, array_like=True, frozen=True, gc=False, tag=True):
    """Terminal answer to DetokenizeReq."""

    request_id: str
    prompt: str


class Output(msgspec.Struct, array_like=True, frozen=True, gc=False, tag=True):
    """Terminal answer to OneShotReq and ImageToImageReq: what `forward` returned, plain msgpack values."""

    request_id: str
    output: Any


class CancelResult(msgspec.Struct, array_like=True, frozen=True, gc=False, tag=True):
    """Answer to CancelByHandleReq."""

    request_id: str
    num_requests: int
    """That were open, and have ended now."""


class Goaway(msgspec.Struct, array_like=True, frozen=True, gc=False, tag=True):
    """Draining: what is open will be finished, send nothing new."""

    reason: str = ""


Terminal = Finished | Failed | Tokenized | Detokenized | Output
Reply = Hello | Status | Accepted | StepReply | Terminal | CancelResult | Goaway
"""All that travels from model server to gateway."""
