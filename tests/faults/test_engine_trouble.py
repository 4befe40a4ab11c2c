"""The model raises, or runs out of memory or of KV blocks, while a batch runs: who is not at fault must not notice."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.e2e.service import Service, running
from tests.faults.faulty_model_server import CROWD, GLUTTON, POISON
from tests.faults.streams import client_of
from tests.faults.table import FaultTable

pytestmark = [pytest.mark.faults, pytest.mark.timeout(300)]

BATCH = 16
ROUNDS = 20
NEXT = 100
TOKENS = 64
MODEL = ["--served-model-name", "tiny", "--dtype", "float32"]
SHORT = ["--kv-cache-memory", "400kB", "--max-model-len", "256"]
"""64 blocks of 16 tokens: a batch of 32 requests that come to 96 tokens needs three times as many."""


class FaultyService(Service):
    """Its model breaks at some prompts."""

    def start_model_server(self) -> None:
        with (self._logs / "model_server.log").open("ab") as log:
            command = [sys.executable, "-m", "tests.faults.faulty_model_server", *self._model_args]
            self.model_server = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT)


@pytest.fixture
def faulty(tiny_models: dict[str, Path], tmp_path: Path) -> Iterator[Service]:
    arguments = ["--model-uri", str(tiny_models["llama"]), *MODEL, "--kv-cache-memory", "20MB"]
    with running(FaultyService(tmp_path, arguments)) as service:
        yield service


@pytest.fixture
def short_of_blocks(tiny_models: dict[str, Path], tmp_path: Path) -> Iterator[Service]:
    with running(Service(tmp_path, ["--model-uri", str(tiny_models["llama"]), *MODEL, *SHORT])) as service:
        yield service


def request(number: int, prompt: str = "", tokens: int = TOKENS) -> dict[str, Any]:
    """Every other one is drawn by its own seed."""
    text = f"{prompt}request {number}: ".ljust(32, "x")
    sampling = {"temperature": number % 2, "seed": number, "max_tokens": tokens, "ignore_eos": True}
    return {"model": "tiny", "prompt": text, **sampling}


Answer = tuple[int, Any]
"""Status, and the text or the whole error."""


def ask(service: Service, requests: Sequence[dict[str, Any]], *, at_once: bool = True) -> list[Answer]:
    async def one(client: httpx.AsyncClient, fields: dict[str, Any]) -> Answer:
        response = await client.post("/v1/completions", json=fields)
        body = response.json()
        return response.status_code, body["choices"][0]["text"] if response.is_success else body["error"]

    async def run() -> list[Answer]:
        async with client_of(service.url) as client:
            if at_once:
                return await asyncio.gather(*(one(client, fields) for fields in requests))
            return [await one(client, fields) for fields in requests]

    return asyncio.run(asyncio.wait_for(run(), 120))


def pid_of(service: Service) -> int:
    """Of the model server, which must live."""
    assert service.model_server is not None
    assert service.model_server.poll() is None
    return service.model_server.pid


def test_one_request_of_sixteen_breaks_the_step(faulty: Service, faults: FaultTable) -> None:
    pid = pid_of(faulty)
    others = [request(number) for number in range(BATCH - 1)]
    began = time.monotonic()
    undisturbed = ask(faulty, others)
    plain_s = time.monotonic() - began
    durations: list[float] = []
    for number in range(ROUNDS):
        place = number % BATCH
        began = time.monotonic()
        answers = ask(faulty, [*others[:place], request(99, POISON), *others[place:]])
        durations.append(time.monotonic() - began)
        status, error = answers.pop(place)
        assert (status, error["code"]) == (500, "internal_error")
        assert answers == undisturbed
    assert pid_of(faulty) == pid
    faults.shows(
        "F5",
        f"{ROUNDS} times: 1 × 500, {BATCH - 1} × the same text as without it, same process; all answered after "
        f"{max(durations):.2f} s at most (without it {plain_s:.2f} s)",
    )


def test_three_times_the_blocks_that_there_are(short_of_blocks: Service, faults: FaultTable) -> None:
    requests = [request(number) | {"temperature": 0} for number in range(32)]
    unloaded = ask(short_of_blocks, requests, at_once=False)
    assert {status for status, _ in unloaded} == {200}
    assert short_of_blocks.load()["preemptions"] == 0
    for _ in range(ROUNDS):
        assert ask(short_of_blocks, requests) == unloaded
    load = short_of_blocks.load()
    assert load["preemptions"] >= ROUNDS
    faults.shows(
        "F19",
        f"{ROUNDS} times 32 requests in {load['total_blocks']} of 192 blocks: every text as alone, "
        f"{load['preemptions']} preemptions",
    )


def test_too_little_memory(faulty: Service, faults: FaultTable) -> None:
    pid = pid_of(faulty)
    others = [request(number) for number in range(BATCH - 1)]
    undisturbed = ask(faulty, others)
    for _ in range(ROUNDS):
        crowded, *answers = ask(faulty, [request(99, CROWD, tokens=4), *others])
        assert crowded[0] == 200
        assert answers == undisturbed
        (status, error), *answers = ask(faulty, [request(99, GLUTTON), *others])
        assert (status, error["code"]) == (503, "service_unavailable")
        assert answers == undisturbed
    after = ask(faulty, [request(number) for number in range(NEXT)])
    assert [status for status, _ in after] == [200] * NEXT
    assert after[: BATCH - 1] == undisturbed
    assert pid_of(faulty) == pid
    faults.shows(
        "F21",
        f"{ROUNDS} times a step that fits only in parts: {BATCH} × 200, same texts; {ROUNDS} times one request that "
        f"never fits: 1 × 503, {BATCH - 1} × the same text; then {NEXT} of {NEXT} answered, same process",
    )
