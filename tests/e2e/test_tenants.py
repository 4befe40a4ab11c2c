"""Two API keys at one model: caches that know nothing of each other, and tokens in equal parts."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.e2e.service import Service, running

COMPLETIONS = "/v1/completions"
SEATS = 4


@pytest.fixture(scope="module")
def service(tiny_models: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    model = ["--model-uri", str(tiny_models["llama"]), "--dtype", "float32", "--kv-cache-memory", "20MB"]
    keys = ["--api-key", "busy", "--api-key", "quiet"]
    made = Service(tmp_path_factory.mktemp("tenants"), [*model, "--max-num-seqs", str(SEATS)], keys)
    made.http.headers.update(bearer("busy"))
    with running(made):
        yield made


def bearer(key: str) -> dict[str, str]:
    return {"authorization": f"Bearer {key}"}


def cached_tokens(service: Service, key: str, prompt: str, **fields: Any) -> int:
    body = {"prompt": prompt, "max_tokens": 1, **fields}
    usage = service.http.post(COMPLETIONS, json=body, headers=bearer(key)).json()["usage"]
    return int(usage["prompt_tokens_details"]["cached_tokens"])


@pytest.mark.rule("S11")
def test_no_prefix_is_found_in_the_cache_of_another_key(service: Service) -> None:
    prompt = "The same words, said by two people who know nothing of each other. "
    assert [cached_tokens(service, "busy", prompt) > 0 for _ in range(2)] == [False, True]
    assert [cached_tokens(service, "quiet", prompt) > 0 for _ in range(2)] == [False, True]


@pytest.mark.rule("S11")
def test_salt_of_a_client_parts_what_it_has_and_opens_nothing(service: Service) -> None:
    prompt = "Words that are said with a salt, and then again by somebody who knows the salt. "
    assert [cached_tokens(service, "busy", prompt, cache_salt="s") > 0 for _ in range(2)] == [False, True]
    assert cached_tokens(service, "busy", prompt) == 0
    assert cached_tokens(service, "quiet", prompt, cache_salt="s") == 0


class Crowd:
    """Clients of one key: each sends its next request as soon as it has the answer to the last one."""

    def __init__(self, key: str, url: str) -> None:
        self.key = key
        self.num_answers = 0
        self._client = httpx.AsyncClient(base_url=url, headers=bearer(key), timeout=300)
        self._rng = random.Random(key)

    async def come_and_go(self, served: Counter[str]) -> None:
        while True:
            size = self._rng.choice([5, 60])
            prompt = [self._rng.randrange(3, 250) for _ in range(size)]
            body = {"prompt": prompt, "max_tokens": self._rng.choice([20, 100]), "ignore_eos": True}
            answer = await self._client.post(COMPLETIONS, json=body)
            usage = answer.json()["usage"]
            served[self.key] += usage["total_tokens"] - usage["prompt_tokens_details"]["cached_tokens"]
            self.num_answers += 1


@pytest.mark.slow
async def test_key_with_a_tenth_of_the_clients_gets_half_of_the_tokens(service: Service) -> None:
    served: Counter[str] = Counter()
    busy, quiet = Crowd("busy", service.url), Crowd("quiet", service.url)
    clients = [asyncio.create_task(busy.come_and_go(served)) for _ in range(54)]
    clients += [asyncio.create_task(quiet.come_and_go(served)) for _ in range(6)]
    try:
        await _until_answered(clients, busy, quiet, 20)
        served.clear()
        await _until_answered(clients, busy, quiet, 250)
        parts = {key: tokens / served.total() for key, tokens in served.items()}
    finally:
        for client in clients:
            client.cancel()
        await asyncio.gather(*clients, return_exceptions=True)
    assert parts == pytest.approx({"busy": 0.5, "quiet": 0.5}, rel=0.05)


async def _until_answered(clients: list[asyncio.Task[None]], busy: Crowd, quiet: Crowd, num_answers: int) -> None:
    while min(busy.num_answers, quiet.num_answers) < num_answers:
        assert not any(client.done() for client in clients), "a client has failed"
        await asyncio.sleep(0.01)
