"""One completion: what is asked, and what its stream tells."""

from __future__ import annotations

import asyncio
import json
import time
from dataclasses import dataclass
from typing import Any

import msgspec

from benchmarks.event_stream import EventParser
from benchmarks.http_exchange import OK, Answer, ExchangeError, ServerAddress, exchange
from benchmarks.prompts import Prompt
from benchmarks.records import RequestRecord

PATHS = {"completions": "/v1/completions", "chat": "/v1/chat/completions"}

_ERROR_CHARS = 200


def length_fields(way: str, tokens: int) -> dict[str, Any]:
    """Fields that keep an end token from ending an answer, in the way that a server understands."""
    match way:
        case "ignore_eos, min_tokens":
            return {"ignore_eos": True, "min_tokens": tokens}
        case "ignore_eos":
            return {"ignore_eos": True}
        case "min_tokens":
            return {"min_tokens": tokens}
        case "generation_config":
            return {"generation_config": json.dumps({"min_new_tokens": tokens, "do_sample": False})}
        case "nothing":
            return {}
    raise ValueError(way)


LENGTH_WAYS = ("ignore_eos, min_tokens", "ignore_eos", "min_tokens", "generation_config", "nothing")
"""The order in which they are tried; `generation_config` is transformers' own."""


@dataclass(frozen=True)
class Asking:
    """How one server is asked."""

    server: ServerAddress
    endpoint: str
    model: str
    length_way: str
    timeout_s: float

    @property
    def path(self) -> str:
        """Of the endpoint."""
        return PATHS[self.endpoint]

    def body(self, prompt: Prompt, *, stream: bool) -> bytes:
        """Greedy, of an exact length, with usage."""
        chat = self.endpoint == "chat"
        text = {"messages": [{"role": "user", "content": prompt.text}]} if chat else {"prompt": prompt.text}
        options = {"stream": True, "stream_options": {"include_usage": True}} if stream else {}
        fixed = {"model": self.model, "max_tokens": prompt.output_tokens, "temperature": 0}
        return msgspec.json.encode(fixed | text | options | length_fields(self.length_way, prompt.output_tokens))


async def stream_completion(asking: Asking, prompt: Prompt, run_began: float) -> RequestRecord:
    """Ask and read to the end. Whatever goes wrong is in the record."""
    called_at = time.perf_counter()
    stream, answer = _Stream(), Answer(sent_at=called_at)
    body = asking.body(prompt, stream=True)
    try:
        async with asyncio.timeout(asking.timeout_s):
            await exchange(asking.server, "POST", asking.path, body, on_data=stream.feed, answer=answer)
        failure = stream.failure() if answer.status == OK else error_of(answer)
    except TimeoutError:
        failure = stream.failure(f"no end within {asking.timeout_s:g} s")
    except ExchangeError as error:
        failure = stream.failure(str(error))
    return stream.record(prompt, answer.sent_at, run_began, failure)


async def whole_completion(asking: Asking, prompt: Prompt) -> Answer:
    """The same, not streamed. Raises ExchangeError; any status is an answer."""
    try:
        async with asyncio.timeout(asking.timeout_s):
            return await exchange(asking.server, "POST", asking.path, asking.body(prompt, stream=False))
    except TimeoutError:
        raise ExchangeError(f"no answer within {asking.timeout_s:g} s") from None


def error_of(answer: Answer) -> str:
    """One short line about an answer that is not a 200: OpenAI's message, FastAPI's detail, or the text's start."""
    try:
        body = json.loads(answer.body)
    except ValueError:
        body = answer.body.decode(errors="replace")
    return f"HTTP {answer.status}: {_message(body)}"


def _message(error: Any) -> str:
    while isinstance(error, dict) and (inner := error.get("error") or error.get("message") or error.get("detail")):
        error = inner
    return " ".join(str(error).split())[:_ERROR_CHARS].removesuffix(".")


class Usage(msgspec.Struct):
    """Counted by the server."""

    prompt_tokens: int | None = None
    completion_tokens: int | None = None


class Whole(msgspec.Struct):
    """Of an answer that was not streamed, what matters here."""

    usage: Usage | None = None


class _Delta(msgspec.Struct):
    content: str | None = None
    reasoning_content: str | None = None
    reasoning: str | None = None


class _Choice(msgspec.Struct):
    text: str | None = None
    delta: _Delta | None = None
    token_ids: list[int] | None = None
    finish_reason: str | None = None

    def says_something(self) -> bool:
        delta = self.delta
        return bool(
            self.text or self.token_ids or (delta and (delta.content or delta.reasoning_content or delta.reasoning))
        )


class _Chunk(msgspec.Struct):
    choices: list[_Choice] | None = None
    usage: Usage | None = None
    error: Any = None


class _Stream:
    """The events of one answer, as they come."""

    def __init__(self) -> None:
        self._events = EventParser()
        self._decode = msgspec.json.Decoder(_Chunk).decode
        self._said_at: list[float] = []
        self._last_at: float | None = None
        self._done = False
        self._finish_reason: str | None = None
        self._error: str | None = None
        self._usage = Usage()

    def feed(self, data: bytes) -> None:
        now = time.perf_counter()
        for event in self._events.feed(data):
            self._last_at = now
            self._take(event, now)

    def failure(self, broke: str | None = None) -> str | None:
        """Why this is not a whole answer, if it is not. `broke` is what ended the connection early, if that happened:
        after [DONE] it does not matter."""
        if self._error is not None or self._done:
            return self._error
        if broke is None and self._finish_reason is None:
            return "the stream ended without [DONE] and without a finish reason"
        return broke

    def record(self, prompt: Prompt, sent_at: float, run_began: float, failure: str | None) -> RequestRecord:
        ended_at = time.perf_counter() if failure or self._last_at is None else self._last_at
        return RequestRecord(
            started_s=sent_at - run_began,
            e2e_s=ended_at - sent_at,
            asked_tokens=prompt.output_tokens,
            chunks_s=[at - sent_at for at in self._said_at],
            input_tokens=self._usage.prompt_tokens,
            output_tokens=self._usage.completion_tokens,
            finish_reason=self._finish_reason,
            error=failure,
        )

    def _take(self, event: bytes, now: float) -> None:
        if event == b"[DONE]":
            self._done = True
            return
        try:
            chunk = self._decode(event)
        except msgspec.DecodeError as error:
            self._error = self._error or f"an event of the stream is not a completion: {error}"
            return
        if chunk.error is not None:
            self._error = self._error or f"error in the stream: {_message(chunk.error)}"
        self._usage = chunk.usage or self._usage
        for choice in chunk.choices or []:
            self._finish_reason = choice.finish_reason or self._finish_reason
            if choice.says_something():
                self._said_at.append(now)
