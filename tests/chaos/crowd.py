"""Clients that ask, all the time, and look at what they get."""

from __future__ import annotations

import asyncio
import random
import socket
import time
from collections.abc import Coroutine, Sequence
from types import TracebackType
from typing import Any

import httpx

from tests.chaos.conversation import REFUSALS, End, Reply, ask_streamed, ask_whole
from tests.chaos.fleet import Fleet
from tests.chaos.ledger import Ledger
from tests.chaos.questions import Question, nonce

_PATIENCE_S = 60.0
"""Longer than a gateway holds a request for a server that is being started."""
_FAR_PATIENCE_S = 15.0
"""Behind a bad network an answer may never come."""
_AFTER_REFUSAL_S = 0.3
_LOOK_AGAIN_S = 0.02
_Asking = Coroutine[Any, Any, Reply]
_PLAIN = {"model": "tiny"}
_SMALL_BUFFER = [(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)]


class Crowd:
    """`size` clients at a time. Seven in ten reach the gateway directly, and so may expect a word for everything."""

    def __init__(self, fleet: Fleet, asked: Sequence[Question], ledger: Ledger, seed: str, size: int = 12) -> None:
        self._fleet = fleet
        self._questions = asked
        self._ledger = ledger
        self._seed = seed
        self._size = size
        self._near = _client(fleet.url)
        self._slow = _client(fleet.url, socket_options=_SMALL_BUFFER)
        # A connection that a blackhole has swallowed must not be used again.
        self._far = _client(fleet.far_url, max_keepalive_connections=0)

    async def __aenter__(self) -> Crowd:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for client in (self._near, self._slow, self._far):
            await client.aclose()

    async def ask_until(self, is_over: asyncio.Event) -> None:
        """Asks until then, and waits for the last answers."""
        async with asyncio.TaskGroup() as clients:
            for number in range(self._size):
                clients.create_task(self._ask_on(random.Random(f"{self._seed}-{number}"), is_over))

    async def ask_each_once(self) -> None:
        """Every question, directly; the answers must be right, and there must be one."""
        for question in self._questions:
            self._ledger.ask()
            reply = await ask_whole(self._near, question, _PATIENCE_S)
            self._ledger.take(question, reply)
            if reply.end is not End.ANSWERED:
                self._ledger.violate(f"no answer in the end: {reply.end}, {reply.detail}")

    async def wait_answered(self) -> None:
        """Until somebody who asks a short question gets its answer; who is refused asks again. Raises TimeoutError."""
        question = min(self._questions, key=lambda question: question.body["max_tokens"])
        async with asyncio.timeout(_PATIENCE_S):
            while (reply := await ask_whole(self._near, question, _PATIENCE_S)).end is not End.ANSWERED:
                self._ledger.ask()
                self._ledger.take(question, reply)
                await asyncio.sleep(_LOOK_AGAIN_S)

    async def leave_all(self, chance: random.Random, count: int) -> None:
        """Streams that are begun together and left together."""
        async with asyncio.TaskGroup() as clients:
            for _ in range(count):
                question = chance.choice(self._questions)
                clients.create_task(self._ask(self._streamed(question, chance.randint(0, 3)), question))

    async def _ask_on(self, chance: random.Random, is_over: asyncio.Event) -> None:
        while not is_over.is_set():
            question, way = chance.choice(self._questions), chance.random()
            if way < 0.1:
                await self._there_and_back(chance)
            elif way < 0.3:
                await self._ask_from_afar(chance, question)
            else:
                await self._ask(self._directly(chance, question), question)

    def _directly(self, chance: random.Random, question: Question) -> _Asking:
        kind = chance.random()
        if kind < 0.5:
            return ask_whole(self._near, question, _PATIENCE_S)
        if kind < 0.6:
            return ask_streamed(self._slow, question, _PATIENCE_S, pause_s=0.05)
        return self._streamed(question, chance.randint(0, 8) if kind < 0.75 else -1)

    def _streamed(self, question: Question, leave_after: int) -> _Asking:
        return ask_streamed(self._near, question, _PATIENCE_S, leave_after=leave_after)

    async def _ask(self, asking: _Asking, question: Question) -> None:
        self._ledger.ask()
        reply = await asking
        self._ledger.take(question, reply, is_excused=self._fleet.gateway_downtime.touches(reply.began_s))
        if reply.end is not End.ANSWERED:
            await asyncio.sleep(_AFTER_REFUSAL_S)

    async def _ask_from_afar(self, chance: random.Random, question: Question) -> None:
        self._ledger.ask()
        ask = ask_whole if chance.random() < 0.5 else ask_streamed
        reply = await ask(self._far, question, _FAR_PATIENCE_S)
        ways = self._fleet.gateway_downtime, self._fleet.clients_way.downtime
        is_down = any(way.touches(reply.began_s) for way in ways)
        # This client's patience is shorter than the gateway's with a server that starts.
        self._ledger.take(question, reply, is_excused=is_down or reply.end is End.NONE)

    async def _there_and_back(self, chance: random.Random) -> None:
        """A new nonce to tokens, and the tokens back to the nonce."""
        word, began = nonce(chance), time.monotonic()
        self._ledger.ask()
        try:
            response = await self._near.post("/tokenize", json={**_PLAIN, "prompt": word, "add_special_tokens": False})
            if not response.is_error:
                tokens = response.json()["tokens"]
                response = await self._near.post("/detokenize", json={**_PLAIN, "tokens": tokens})
        except httpx.HTTPError as error:
            is_down = self._fleet.gateway_downtime.touches(began)
            self._ledger.take_end(End.CUT, is_excused=is_down)
            if not is_down:
                self._ledger.violate(f"/tokenize was cut off: {type(error).__name__}")
        else:
            self._judge(word, response)

    def _judge(self, word: str, response: httpx.Response) -> None:
        if response.status_code in REFUSALS:
            self._ledger.take_end(End.REFUSED)
        elif response.status_code != httpx.codes.OK:
            self._ledger.take_end(End.FAILED)
            self._ledger.violate(f"/tokenize: {response.status_code} {response.text[:200]}")
        else:
            self._ledger.take_end(End.ANSWERED)
            if response.json()["prompt"] != word:
                self._ledger.violate(f"/detokenize gave {response.text[:200]} for {word}")


def _client(url: str, *, socket_options: Any = None, **limits: int) -> httpx.AsyncClient:
    bounds = httpx.Limits(max_connections=None, **limits)
    transport = httpx.AsyncHTTPTransport(limits=bounds, socket_options=socket_options, trust_env=False)
    return httpx.AsyncClient(base_url=url, transport=transport, timeout=_PATIENCE_S)
