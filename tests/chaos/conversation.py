"""One request over HTTP, and how it ended."""

from __future__ import annotations

import asyncio
import json
import time
from collections import defaultdict
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

import httpx

from tests.chaos.questions import Question

REFUSALS = (429, 503, 504)
DONE = "[DONE]"


class End(StrEnum):
    """The ways in which a request ends."""

    ANSWERED = "answered"
    REFUSED = "refused"
    """429, 503 or 504, or such an error as a stream's last event."""
    FAILED = "failed"
    """Any other status or error."""
    CUT = "cut off"
    """The connection ended, or was not made; no word of why."""
    LEFT = "left"
    """The client went away."""
    NONE = "no end"
    """Still open when the client's patience ended."""


@dataclass
class Reply:
    """What came back."""

    began_s: float = field(default_factory=time.monotonic)
    end: End = End.CUT
    answer: dict[int, str] = field(default_factory=lambda: defaultdict(str))
    detail: str = ""
    """Of an end that is no answer."""
    took_s: float = 0.0


async def ask_whole(client: httpx.AsyncClient, question: Question, patience_s: float) -> Reply:
    """The answer in one piece."""
    reply = Reply()

    async def talk() -> None:
        response = await client.post(question.path, json=dict(question.body))
        if response.status_code != httpx.codes.OK:
            _end_by_status(reply, response)
            return
        for choice in response.json()["choices"]:
            reply.answer[choice["index"]] = choice["message"]["content"] if "message" in choice else choice["text"]
        reply.end = End.ANSWERED

    return await _within(patience_s, talk, reply)


async def ask_streamed(
    client: httpx.AsyncClient, question: Question, patience_s: float, *, pause_s: float = 0.0, leave_after: int = -1
) -> Reply:
    """The answer as it is made. The client rests `pause_s` after each piece that it has read, and goes away after
    `leave_after` events, if that is not negative."""
    reply = Reply()

    async def talk() -> None:
        async with client.stream("POST", question.path, json=question.streamed()) as response:
            if response.status_code != httpx.codes.OK:
                await response.aread()
                _end_by_status(reply, response)
                return
            left = leave_after
            async for line in response.aiter_lines():
                if left == 0:
                    reply.end = End.LEFT
                    return
                if line.startswith("data: "):
                    left -= 1
                    _take_event(reply, line.removeprefix("data: "))
                    await asyncio.sleep(pause_s)

    return await _within(patience_s, talk, reply)


async def _within(patience_s: float, talk: Any, reply: Reply) -> Reply:
    try:
        async with asyncio.timeout(patience_s):
            await talk()
    except TimeoutError:
        reply.end, reply.detail = End.NONE, f"nothing for {patience_s:g} s"
    except httpx.HTTPError as error:
        reply.end, reply.detail = End.CUT, f"{type(error).__name__}: {error}"
    reply.took_s = time.monotonic() - reply.began_s
    return reply


def _end_by_status(reply: Reply, response: httpx.Response) -> None:
    reply.end = End.REFUSED if response.status_code in REFUSALS else End.FAILED
    reply.detail = f"{response.status_code} {response.text[:200]}"
    if response.status_code in (429, 503) and "retry-after" not in response.headers:
        reply.end, reply.detail = End.FAILED, f"no Retry-After: {reply.detail}"


def _take_event(reply: Reply, data: str) -> None:
    if reply.end is not End.CUT:
        reply.end, reply.detail = End.FAILED, f"an event after the end: {data[:200]}"
    elif data == DONE:
        reply.end = End.ANSWERED
    else:
        _take_object(reply, json.loads(data))


def _take_object(reply: Reply, event: dict[str, Any]) -> None:
    if (error := event.get("error")) is not None:
        is_refusal = error["code"] != "internal_error"
        reply.end, reply.detail = End.REFUSED if is_refusal else End.FAILED, f"event {error}"
        return
    for choice in event["choices"]:
        reply.answer[choice["index"]] += choice.get("text") or choice.get("delta", {}).get("content") or ""
