"""64 concurrent requests over HTTP give token for token what transformers gives one by one, in float32."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from transformers import PreTrainedModel

from tests.e2e.service import Service
from tests.oracle import assert_greedy, assert_same_tokens, generate, load_oracle

Asked = tuple[list[int], int, bool]
"""Prompt, max_tokens, ignore_eos."""


FULL = (900, 400, (1, 2, 8, 32, 32, 64, 128))
USUAL = (60, 64, (1, 8, 40, 40))
"""The longest prompt, the longest prefix, and the numbers of output tokens."""


def mixed_requests(longest: int, longest_prefix: int, outputs: Sequence[int]) -> list[Asked]:
    """64 prompts of random lengths; a third of them begin like another."""
    rng = random.Random(20)

    def words(count: int) -> list[int]:
        return [rng.randrange(100, 40000) for _ in range(count)]

    prefixes = [words(longest_prefix), words(96)]
    lengths = [1, 2, 15, 16, 17, longest, *(int(longest ** rng.random()) for _ in range(58))]
    requests = []
    for number, length in enumerate(lengths):
        prompt = words(length)
        if number % 3 == 0:
            prompt = [*rng.choice(prefixes)[: rng.choice([48, 96, longest_prefix])], *words(min(length, 30))]
        requests.append((prompt, rng.choice(outputs), number % 2 == 0))
    return requests


async def answers(service: Service, requests: list[Asked]) -> list[list[int]]:
    client = service.async_openai(max_retries=0, timeout=280)

    async def ask(prompt: list[int], max_tokens: int, ignore_eos: bool) -> list[int]:
        extra: dict[str, Any] = {"return_token_ids": True, "ignore_eos": ignore_eos}
        completion = await client.completions.create(
            model="smollm2-135m-instruct", prompt=prompt, max_tokens=max_tokens, temperature=0, extra_body=extra
        )
        choice = completion.choices[0]
        assert completion.usage is not None
        assert completion.usage.prompt_tokens == len(prompt)
        assert completion.usage.completion_tokens == len(choice.token_ids)
        assert choice.finish_reason == ("length" if len(choice.token_ids) == max_tokens else "stop") or not ignore_eos
        return list(choice.token_ids)

    return await asyncio.gather(*(ask(*request) for request in requests))


@pytest.fixture(scope="module", params=[USUAL, pytest.param(FULL, marks=pytest.mark.slow)], ids=["usual", "full"])
def asked_and_got(request: pytest.FixtureRequest, float32_service: Service) -> list[tuple[Asked, list[int]]]:
    before = float32_service.load()
    requests = mixed_requests(*request.param)
    got = asyncio.run(answers(float32_service, requests))
    after = float32_service.load()
    for counter in ("preemptions", "chunked_prefills", "prefix_hit_tokens"):
        assert after[counter] > before[counter], counter
    return list(zip(requests, got, strict=True))


@pytest.fixture(scope="module")
def oracle(builtin_folder: Path) -> PreTrainedModel:
    return load_oracle(builtin_folder)


@pytest.mark.timeout(600)
def test_every_token_is_the_best_one_after_those_before_it(
    asked_and_got: list[tuple[Asked, list[int]]], oracle: PreTrainedModel
) -> None:
    for (prompt, max_tokens, ignore_eos), got in asked_and_got:
        assert_greedy(oracle, prompt, got)
        assert len(got) == max_tokens or (not ignore_eos and got[-1] == 2)


def test_some_equal_generate(asked_and_got: list[tuple[Asked, list[int]]], oracle: PreTrainedModel) -> None:
    for (prompt, max_tokens, ignore_eos), got in asked_and_got[::9]:
        expected = generate(oracle, prompt, max_tokens, ignore_eos=ignore_eos)
        assert_same_tokens(oracle, prompt, got, expected)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_all_equal_generate(asked_and_got: list[tuple[Asked, list[int]]], oracle: PreTrainedModel) -> None:
    for (prompt, max_tokens, ignore_eos), got in asked_and_got:
        expected = generate(oracle, prompt, max_tokens, ignore_eos=ignore_eos)
        assert_same_tokens(oracle, prompt, got, expected)
