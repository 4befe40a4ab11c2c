"""Clients that ask in all ways, walk away, and send nonsense: what they met, counted."""

from __future__ import annotations

import asyncio
import json
import random
from collections import Counter
from collections.abc import Callable
from typing import Any

import httpx

from tests.soak.requests import Question, invalid_question, valid_question

LEAVE_SHARE = 0.10
INVALID_SHARE = 0.05
MAX_SURPRISES = 20
"""Different ones that are kept for the report; `outcomes` counts them all."""


class Surprise(Exception):
    """An answer that is not the one that the question has."""


class Traffic:
    """`clients` of them, each with one question at a time. `outcomes` counts answered, left, refused and surprises."""

    def __init__(self, url: str, clients: int, pause_s: float, seed: int) -> None:
        self._url = url
        self._clients = clients
        self._pause_s = pause_s
        self._rng = random.Random(seed)
        self.outcomes: Counter[str] = Counter()
        self.surprises: Counter[str] = Counter()

    @property
    def asked(self) -> int:
        """All that has ended, whichever way."""
        return self.outcomes.total()

    async def run(self, is_over: Callable[[], bool]) -> None:
        """Until then, and until each client has its last answer; no connection is left open."""
        limits = httpx.Limits(max_connections=None)
        async with httpx.AsyncClient(base_url=self._url, timeout=60, limits=limits, trust_env=False) as client:
            await asyncio.gather(*(self._one_client(client, is_over) for _ in range(self._clients)))

    async def _one_client(self, client: httpx.AsyncClient, is_over: Callable[[], bool]) -> None:
        while not is_over():
            try:
                outcome = await self._one_question(client)
            except (Surprise, httpx.HTTPError, ValueError, LookupError) as error:
                outcome = "surprises"
                self._note(f"{type(error).__name__}: {error}")
            self.outcomes[outcome] += 1
            await asyncio.sleep(self._rng.uniform(0, 2 * self._pause_s))

    def _note(self, surprise: str) -> None:
        if surprise in self.surprises or len(self.surprises) < MAX_SURPRISES:
            self.surprises[surprise] += 1

    async def _one_question(self, client: httpx.AsyncClient) -> str:
        chance = self._rng.random()
        if chance < INVALID_SHARE:
            await _ask(client, invalid_question(self._rng))
            return "refused"
        question = valid_question(self._rng, self.asked)
        if chance < INVALID_SHARE + LEAVE_SHARE:
            return await self._leave(client, question)
        await (_ask_stream if question.is_stream else _ask)(client, question)
        return "answered"

    async def _leave(self, client: httpx.AsyncClient, question: Question) -> str:
        """The connection is closed after a moment: before the first token, amid the text, or too late."""
        try:
            async with asyncio.timeout(self._rng.expovariate(1 / 0.03)):
                await (_ask_stream if question.is_stream else _ask)(client, question)
        except TimeoutError:
            return "left"
        return "answered"


async def _ask(client: httpx.AsyncClient, question: Question) -> None:
    answer = await _send(client, question)
    body = answer.json()
    if answer.status_code not in question.statuses:
        raise Surprise(f"{question.path} said {answer.status_code}: {answer.text[:200]}")
    if answer.status_code != httpx.codes.OK and not body["error"]["message"]:
        raise Surprise(f"{question.path} refused without a reason")
    for name, value in question.expected.items():
        if body[name] != value:
            raise Surprise(f"{question.path} answered another {name} than {value}")


async def _send(client: httpx.AsyncClient, question: Question) -> httpx.Response:
    if question.body is None:
        return await client.get(question.path)
    if isinstance(question.body, bytes):
        return await client.post(question.path, content=question.body)
    return await client.post(question.path, json=question.body)


async def _ask_stream(client: httpx.AsyncClient, question: Question) -> None:
    last = ""
    async with client.stream("POST", question.path, json=question.body) as answer:
        if answer.status_code != httpx.codes.OK:
            text = (await answer.aread()).decode()
            raise Surprise(f"{question.path} said {answer.status_code} to a stream: {text[:200]}")
        async for line in answer.aiter_lines():
            last = line or last
            _check_event(question, line)
    if last != "data: [DONE]":
        raise Surprise(f"a stream of {question.path} ended with {last[:200]}")


def _check_event(question: Question, line: str) -> None:
    if line.startswith("data: {"):
        event: dict[str, Any] = json.loads(line[6:])
        if "error" in event:
            raise Surprise(f"a stream of {question.path} brought an error: {event['error']['message'][:200]}")
