"""What a request came to, made of the replies that it got: the same with an event loop and without one."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from vfastml.engine.dispatch_replies import (
    Accepted,
    Delta,
    Detokenized,
    Failed,
    Finished,
    Output,
    PlaceLogprobs,
    Terminal,
    Timings,
    Tokenized,
    Usage,
)
from vfastml.engine.dispatch_requests import (
    DetokenizeReq,
    ImageToImageReq,
    OneShotReq,
    TextGenerationReq,
    TokenizeReq,
    WorkReq,
)
from vfastml.engine.merged_deltas import merged
from vfastml.errors import InternalServerError, VFastMLError, from_kind

ANSWER_TO: dict[type[WorkReq], type[Terminal]] = {
    TextGenerationReq: Finished,
    TokenizeReq: Tokenized,
    DetokenizeReq: Detokenized,
    OneShotReq: Output,
    ImageToImageReq: Output,
}
"""The terminal of a request that succeeds."""


@dataclass(slots=True)
class ToolCall:
    """A function that the model wants called; `arguments` are JSON text."""

    id: str
    name: str
    arguments: str


@dataclass(slots=True)
class TextChoice:
    """One of the n texts that a request asked for."""

    index: int
    text: str
    token_ids: list[int] | None
    """Only with `return_token_ids`."""
    finish_reason: str | None
    stop_reason: str | int | None
    scores: list[float] | None = None
    """One for each token; only with `output_scores`."""
    logprobs: list[PlaceLogprobs] | None = None
    """One for each token; only with `logprobs`."""
    prompt_logprobs: list[PlaceLogprobs] | None = None
    """One for each token of the prompt; only with `prompt_logprobs`."""
    reasoning: str = ""
    tool_calls: list[ToolCall] = field(default_factory=list)
    score: float | None = None
    """Of a beam: its summed log probability over its length to the power of `length_penalty`."""


@dataclass(slots=True)
class TextGenerationResult:
    """A whole answer, choices in order of their index."""

    choices: list[TextChoice]
    usage: Usage
    timings: Timings
    prompt_token_ids: list[int] | None

    @property
    def text(self) -> str:
        """Of the first choice."""
        return self.choices[0].text


@dataclass(slots=True)
class DispatchRequestResult:
    """What a request came to: `result`, or `error` when it failed.

    `result` is a TextGenerationResult, a Tokenized, a Detokenized, or what a one-shot server's `forward` returned.
    """

    request: WorkReq
    model: str | None
    """The served id of the model that answered; None when the request reached no server."""
    result: Any = None
    error: VFastMLError | None = None

    @property
    def request_id(self) -> str:
        """Of the request."""
        return self.request.request_id

    def succeeded(self) -> bool:
        return self.error is None


@dataclass(slots=True)
class GatheredReplies:
    """All that has come back for one request, until it has ended."""

    request: WorkReq
    model: str | None
    accepted: Accepted | None = None
    deltas: list[Delta] = field(default_factory=list)
    answer: Terminal | None = None
    error: VFastMLError | None = None
    """Decided without an answer: a refusal, for one."""

    @property
    def ended(self) -> bool:
        """Nothing more will come."""
        return self.answer is not None or self.error is not None

    def add(self, reply: Accepted | Delta | Terminal) -> None:
        """The next reply."""
        if isinstance(reply, Accepted):
            self.accepted = reply
        elif isinstance(reply, Delta):
            if not reply.only_counts:
                self.deltas.append(reply)
        else:
            self.answer = reply

    def result(self) -> DispatchRequestResult:
        """What they came to. A request that has not ended has failed."""
        if self.answer is not None:
            return result_of(self.request, self.model, self.accepted, self.deltas, self.answer)
        error = self.error or InternalServerError("The model gave no answer.")
        return DispatchRequestResult(self.request, self.model, error=error)


def result_of(
    request: WorkReq, model: str | None, accepted: Accepted | None, deltas: Iterable[Delta], answer: Terminal
) -> DispatchRequestResult:
    """What these replies came to."""
    error = error_in(request, answer)
    if error is not None:
        return DispatchRequestResult(request, model, error=error)
    return DispatchRequestResult(request, model, result=_value(accepted, deltas, answer))


def error_in(request: WorkReq, answer: Terminal) -> VFastMLError | None:
    """What the answer says went wrong, or what is wrong with it as an answer to this request."""
    if isinstance(answer, Failed):
        return from_kind(
            answer.kind, answer.message, param=answer.param, code=answer.code, retry_after_s=answer.retry_after_s
        )
    if not isinstance(answer, ANSWER_TO[type(request)]):
        return InternalServerError("The model server gave an answer of the wrong kind.")
    return None


def _value(accepted: Accepted | None, deltas: Iterable[Delta], answer: Terminal) -> Any:
    if isinstance(answer, Output):
        return answer.output
    if not isinstance(answer, Finished):
        return answer
    return TextGenerationResult(
        choices=_choices(deltas),
        usage=answer.usage,
        timings=answer.timings,
        prompt_token_ids=accepted.prompt_token_ids if accepted else None,
    )


def _choices(deltas: Iterable[Delta]) -> list[TextChoice]:
    by_index: dict[int, list[Delta]] = {}
    for delta in deltas:
        by_index.setdefault(delta.index, []).append(delta)
    return [_choice(index, by_index[index]) for index in sorted(by_index)]


def _choice(index: int, deltas: list[Delta]) -> TextChoice:
    whole = merged(deltas)
    return TextChoice(
        index=index,
        text=whole.text,
        token_ids=whole.token_ids,
        finish_reason=whole.finish_reason,
        stop_reason=whole.stop_reason,
        scores=whole.scores,
        logprobs=whole.logprobs,
        prompt_logprobs=whole.prompt_logprobs,
        reasoning=whole.reasoning,
        tool_calls=[ToolCall(piece.id, piece.name, piece.arguments) for piece in whole.tool_calls or ()],
        score=whole.score,
    )
