"""Answers of the engine as OpenAI bodies, whole or as the events of a stream."""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from vfastml.engine.dispatch_replies import Accepted, Delta, Timings, Usage
from vfastml.engine.dispatch_result import DispatchRequestResult, TextGenerationResult
from vfastml.entrypoints.openai.reply_styles import Choice, ReplyStyle
from vfastml.entrypoints.streaming import Wording, event, event_json
from vfastml.entrypoints.timings import TimedAnswer, slowest

Body = dict[str, Any]

DONE = b"data: [DONE]\n\n"
_HOLE = secrets.token_hex(16)
"""Stands for the text when a template is made; nobody can have it in a model's name, say."""


def whole_body(style: ReplyStyle, response_id: str, results: Sequence[DispatchRequestResult]) -> Body:
    """The body for results that all succeeded, one for each prompt, in order."""
    answers: list[TextGenerationResult] = [result.result for result in results]
    body = {
        **_head(style.object, response_id, results[0].model),
        "service_tier": None,
        "choices": [choice for position, answer in enumerate(answers) for choice in _choices(style, position, answer)],
        "usage": usage_body(answer.usage for answer in answers),
    }
    return {**body, **_prompt_ids([answer.prompt_token_ids for answer in answers])}


def usage_body(usages: Iterable[Usage]) -> Body:
    """The tokens of all prompts together."""
    prompt = completion = cached = reasoning = 0
    for usage in usages:
        prompt += usage.prompt_tokens
        completion += usage.completion_tokens
        cached += usage.cached_tokens
        reasoning += usage.reasoning_tokens
    return {
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "total_tokens": prompt + completion,
        "prompt_tokens_details": {"cached_tokens": cached},
        "completion_tokens_details": {"reasoning_tokens": reasoning},
    }


class ReplyEvents(Wording):
    """The events of one streamed response. id, created and model are the same in all of them.

    Nearly all deltas are text and nothing else. Their events differ in the text alone: what is around it is encoded
    once for each choice.
    """

    def __init__(
        self,
        style: ReplyStyle,
        response_id: str,
        model: str | None,
        accepted: Sequence[Accepted],
        *,
        choices_per_prompt: int,
        with_usage: bool,
        with_timings: bool = False,
    ) -> None:
        self._style = style
        self._head = _head(style.chunk_object, response_id, model)
        self._prompt_ids = [one.prompt_token_ids for one in accepted]
        self._nums_choices = [one.num_choices for one in accepted]
        self._choices_per_prompt = choices_per_prompt
        self._with_usage = with_usage
        self._with_timings = with_timings
        self._timings: Sequence[Timings] = ()
        self._plain: dict[int, _Template] = {}
        """Of the choices that have been opened: something of theirs was sent."""

    def delta(self, position: int, delta: Delta) -> bytes:
        """What to send for a delta of the prompt at that position; nothing when it has no text yet."""
        index = position * self._choices_per_prompt + delta.index
        template = self._plain.get(index)
        if template is not None and _is_plain(delta):
            return template.head + event_json(delta.text) + template.tail
        chunks = [self._chunk(choice) for choice in self._style.pieces(index, delta)]
        if chunks and index not in self._plain:
            chunks = self._opened_with(index, position, chunks)
        return b"".join(event(chunk) for chunk in chunks)

    def note_timings(self, timings: Sequence[Timings]) -> None:
        """See Wording."""
        self._timings = timings

    def closing(self, usages: Sequence[Usage]) -> bytes:
        """The chunk with the usage and the timings, if one of them was asked for, and the end."""
        asked: Body = {"usage": usage_body(usages)} if self._with_usage else {}
        if self._with_timings:
            answers = map(TimedAnswer, self._timings, usages, self._nums_choices)
            asked["timings"] = slowest(answers).body()
        return (event({**self._head, "choices": [], **asked}) if asked else b"") + DONE

    def _opened_with(self, index: int, position: int, chunks: list[Body]) -> list[Body]:
        opening = self._style.opening(index)
        if opening is not None:
            chunks = [self._chunk(opening), *chunks]
        if self._style.prompt_ids_in_choices and self._prompt_ids[position] is not None:
            chunks[0]["choices"][0]["prompt_token_ids"] = self._prompt_ids[position]
        if not self._plain:
            chunks[0].update(_prompt_ids(self._prompt_ids))
        self._plain[index] = self._template(index)
        return chunks

    def _template(self, index: int) -> _Template:
        (choice,) = self._style.pieces(index, Delta("", text=_HOLE))
        return _Template(*event(self._chunk(choice)).split(event_json(_HOLE)))

    def _chunk(self, choice: Choice) -> Body:
        chunk = {**self._head, "choices": [choice]}
        if self._with_usage:
            chunk["usage"] = None
        return chunk


@dataclass(frozen=True, slots=True)
class _Template:
    """An event around the place of its text."""

    head: bytes
    tail: bytes


def _is_plain(delta: Delta) -> bool:
    has_details = delta.token_ids is not None or delta.logprobs is not None or delta.prompt_logprobs is not None
    has_parsed = delta.reasoning or delta.tool_calls
    has_ended = delta.finish_reason is not None or delta.stop_reason is not None
    return bool(delta.text) and not (has_ended or has_details or has_parsed)


def _choices(style: ReplyStyle, position: int, answer: TextGenerationResult) -> Iterable[Choice]:
    for choice in answer.choices:
        body = style.whole(position * len(answer.choices) + choice.index, choice)
        if style.prompt_ids_in_choices and answer.prompt_token_ids is not None:
            body["prompt_token_ids"] = answer.prompt_token_ids
        yield body


def _head(kind: str, response_id: str, model: str | None) -> Body:
    return {
        "id": response_id,
        "object": kind,
        "created": int(time.time()),
        "model": model or "",
        "system_fingerprint": None,
    }


def _prompt_ids(of_prompts: Sequence[list[int] | None]) -> Body:
    """At the top of the response, where there is one prompt only."""
    if len(of_prompts) != 1 or of_prompts[0] is None:
        return {}
    return {"prompt_token_ids": of_prompts[0]}
