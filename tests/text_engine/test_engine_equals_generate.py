"""The engine's greedy tokens are those of transformers' `generate`, whatever else is in the batch."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.oracle import Oracle, assert_same_tokens, forced_logits, generate, load_oracle
from tests.text_engine.decoder_kinds import DECODERS
from tests.text_engine.engine_driver import EngineDriver
from vfastml.engine.dispatch_requests import SamplingParams


@pytest.fixture(params=DECODERS)
def decoder(request: pytest.FixtureRequest) -> str:
    """Each test is run once for each decoder."""
    return str(request.param)


@pytest.fixture(scope="module")
def oracles(tiny_models: dict[str, Path]) -> dict[str, Oracle]:
    """One for all decoders: they are held against the same texts."""
    return {name: Oracle(folder) for name, folder in tiny_models.items()}


def mixed_requests(rng: random.Random, count: int) -> list[tuple[list[int], int, bool]]:
    """(prompt, max_tokens, ignore_eos), some prompts sharing prefixes."""
    prefixes = [[rng.randrange(256) for _ in range(120)] for _ in range(3)]
    requests = []
    for number in range(count):
        own = [rng.randrange(256) for _ in range(rng.choice([1, 2, 17, 60]))]
        prompt = rng.choice(prefixes)[: rng.choice([15, 16, 64, 120])] + own if number % 3 == 0 else own
        requests.append((prompt, rng.choice([1, 2, 20, 50]), number % 2 == 0))
    return requests


@pytest.mark.parametrize("name", ["llama", "qwen2", "qwen3", "mistral"])
@pytest.mark.parametrize("budget", [7, 64])
def test_packed_chunked_preempted_and_shared_equals_alone(
    tiny_models: dict[str, Path], oracles: dict[str, Oracle], name: str, budget: int, decoder: str
) -> None:
    head_dim = 16 if name == "qwen3" else 8
    driver = EngineDriver.load(
        tiny_models[name],
        dtype="float32",
        max_num_batched_tokens=budget,
        max_num_seqs=16,
        kv_cache_memory=32 * 16 * 3 * 2 * 2 * head_dim * 4,  # 32 blocks of 16 tokens, 3 layers, 2 KV heads, float32
        decoder=decoder,
    )
    oracle = oracles[name]
    requests = mixed_requests(random.Random(64), 24)
    ids = [
        driver.add(prompt, SamplingParams(temperature=0.0, max_tokens=max_tokens, ignore_eos=ignore_eos))
        for prompt, max_tokens, ignore_eos in requests
    ]
    driver.run()
    for request_id, (prompt, max_tokens, ignore_eos) in zip(ids, requests, strict=True):
        expected = oracle.generate(prompt, max_tokens, ignore_eos=ignore_eos)
        assert_same_tokens(oracle.model, prompt, driver.tokens(request_id), expected)
    load = driver.engine.load()
    assert load.preemptions > 0 or budget == 7
    assert load.chunked_prefills > 0
    assert load.prefix_hit_tokens > 0


PENALTY = {"repetition_penalty": 1.3}
BIAS = {"logit_bias": {7: -100.0, 65: 6.0, 200: 3.5}}
ALTERING: list[dict[str, Any]] = [{}, PENALTY, BIAS, PENALTY | BIAS]


def as_transformers_says(altering: dict[str, Any]) -> dict[str, Any]:
    """The same for `generate`."""
    said = dict(altering)
    bias = said.pop("logit_bias", None)
    return said if bias is None else said | {"sequence_bias": {(token,): value for token, value in bias.items()}}


@pytest.mark.parametrize("budget", [7, 64])
def test_penalised_and_biased_rows_beside_plain_ones(
    tiny_models: dict[str, Path], oracles: dict[str, Oracle], budget: int, decoder: str
) -> None:
    driver = EngineDriver.load(
        tiny_models["llama"],
        dtype="float32",
        max_num_batched_tokens=budget,
        max_num_seqs=16,
        kv_cache_memory=32 * 16 * 3 * 2 * 2 * 8 * 4,
        decoder=decoder,
    )
    oracle = oracles["llama"]
    requests = mixed_requests(random.Random(65), 24)
    ids = []
    for number, (prompt, max_tokens, ignore_eos) in enumerate(requests):
        altering = ALTERING[number % len(ALTERING)]
        sampling = SamplingParams(temperature=0.0, max_tokens=max_tokens, ignore_eos=ignore_eos, **altering)
        ids.append(driver.add(prompt, sampling))
    driver.run()
    num_altered = 0
    for number, (request_id, (prompt, max_tokens, ignore_eos)) in enumerate(zip(ids, requests, strict=True)):
        altering = as_transformers_says(ALTERING[number % len(ALTERING)])
        expected = oracle.generate(prompt, max_tokens, ignore_eos=ignore_eos, **altering)
        assert_same_tokens(oracle.model, prompt, driver.tokens(request_id), expected, **altering)
        num_altered += expected != oracle.generate(prompt, max_tokens, ignore_eos=ignore_eos)
    assert num_altered > 5
    load = driver.engine.load()
    assert load.preemptions > 0 or budget == 7
    assert load.chunked_prefills > 0


def test_penalised_choices_of_one_request(
    tiny_models: dict[str, Path], oracles: dict[str, Oracle], decoder: str
) -> None:
    driver = EngineDriver.load(tiny_models["llama"], dtype="float32", decoder=decoder)
    oracle = oracles["llama"]
    prompt = [9, 8, 7] * 7
    sampling = SamplingParams(temperature=0.0, max_tokens=24, ignore_eos=True, **PENALTY)
    request_id = driver.add(prompt, sampling, n=3)
    driver.run()
    expected = oracle.generate(prompt, 24, ignore_eos=True, **PENALTY)
    assert expected != oracle.generate(prompt, 24, ignore_eos=True)
    assert [driver.tokens(request_id, index) for index in range(3)] == [expected] * 3


def test_scores_are_the_models_own_log_probabilities(
    tiny_models: dict[str, Path], oracles: dict[str, Oracle], decoder: str
) -> None:
    driver = EngineDriver.load(tiny_models["llama"], dtype="float32", max_num_batched_tokens=16, decoder=decoder)
    oracle = oracles["llama"]
    hot = {"temperature": 1.3, "top_k": 40, "seed": 3, "min_tokens": 5}
    kinds: list[tuple[dict[str, Any], int]] = [({"temperature": 0.0}, 1), ({**hot, **PENALTY, **BIAS}, 3)]
    requests = [([number, 5, 6] * 9, *kind) for number, kind in enumerate(kinds)]
    ids = []
    for prompt, fields, n in requests:
        sampling = SamplingParams(max_tokens=20, ignore_eos=True, output_scores=True, **fields)
        ids.append(driver.add(prompt, sampling, n=n))
        driver.add(prompt, SamplingParams(max_tokens=20, temperature=0.0))
    driver.run()
    for request_id, (prompt, _, n) in zip(ids, requests, strict=True):
        assert set(driver.answers[request_id].scores) == set(range(n))
        for index in range(n):
            output = driver.tokens(request_id, index)
            logs = forced_logits(oracle.model, prompt, output).log_softmax(-1)
            expected = logs.gather(1, torch.tensor(output)[:, None])[:, 0]
            assert torch.allclose(torch.tensor(driver.answers[request_id].scores[index]), expected, atol=1e-4)
    assert [bool(answer.scores) for answer in driver.answers.values()] == [True, False, True, False]


def test_sliding_window_matters_in_the_test_above(tiny_models: dict[str, Path]) -> None:
    oracle = load_oracle(tiny_models["mistral"])
    prompt = [number % 251 for number in range(100)]
    with_window = generate(oracle, prompt, 8, ignore_eos=True)
    oracle.config.sliding_window = None
    assert generate(oracle, prompt, 8, ignore_eos=True) != with_window


def test_requests_that_come_during_a_run_do_not_disturb_it(
    tiny_models: dict[str, Path], oracles: dict[str, Oracle], decoder: str
) -> None:
    driver = EngineDriver.load(tiny_models["llama"], dtype="float32", max_num_batched_tokens=16, decoder=decoder)
    oracle = oracles["llama"]
    rng, requests = random.Random(1), []
    for _ in range(12):
        prompt = [rng.randrange(256) for _ in range(rng.randrange(1, 40))]
        request_id = driver.add(prompt, SamplingParams(temperature=0.0, max_tokens=30, ignore_eos=True))
        requests.append((request_id, prompt))
        for _ in range(3):
            driver.step()
    driver.run()
    for request_id, prompt in requests:
        assert_same_tokens(
            oracle.model, prompt, driver.tokens(request_id), oracle.generate(prompt, 30, ignore_eos=True)
        )


def test_cancelled_requests_leave_the_others_as_they_were(
    tiny_models: dict[str, Path], oracles: dict[str, Oracle], decoder: str
) -> None:
    driver = EngineDriver.load(tiny_models["llama"], dtype="float32", max_num_batched_tokens=16, decoder=decoder)
    oracle = oracles["llama"]
    sampling = SamplingParams(temperature=0.0, max_tokens=20, ignore_eos=True)
    prompts = [[number, 5, 6] * 10 for number in range(8)]
    ids = [driver.add(prompt, sampling) for prompt in prompts]
    for step in range(6):
        driver.step()
        assert driver.engine.cancel(ids[step])
        driver.engine.check_integrity()
    driver.run()
    for request_id, prompt in list(zip(ids, prompts, strict=True))[6:]:
        assert_same_tokens(
            oracle.model, prompt, driver.tokens(request_id), oracle.generate(prompt, 20, ignore_eos=True)
        )


def test_greedy_choices_of_one_request_are_equal_and_share_the_prompt(
    tiny_models: dict[str, Path], oracles: dict[str, Oracle], decoder: str
) -> None:
    driver = EngineDriver.load(tiny_models["llama"], dtype="float32", decoder=decoder)
    oracle = oracles["llama"]
    prompt = [9, 8, 7] * 7
    request_id = driver.add(prompt, SamplingParams(temperature=0.0, max_tokens=24, ignore_eos=True), n=4)
    driver.step()
    load = driver.engine.load()
    assert load.total_blocks - load.free_blocks == 2  # 21 tokens; four choices, one prompt
    driver.run()
    expected = oracle.generate(prompt, 24, ignore_eos=True)
    assert [driver.tokens(request_id, index) for index in range(4)] == [expected] * 4


@pytest.mark.skipif(not torch.cpu._is_avx512_bf16_supported(), reason="this processor does not compute in bfloat16")
def test_seeded_bfloat16_text_does_not_depend_on_neighbours(builtin_folder: Path, decoder: str) -> None:
    driver = EngineDriver.load(builtin_folder, dtype="bfloat16", kv_cache_memory=100_000_000, decoder=decoder)
    rng = random.Random(0)

    def words(count: int) -> list[int]:
        return [rng.randrange(100, 40000) for _ in range(count)]

    prompt, sampling = words(40), SamplingParams(temperature=0.9, seed=5, max_tokens=24, ignore_eos=True)
    alone = driver.add(prompt, sampling)
    driver.run()
    for _ in range(8):
        driver.add(words(rng.randrange(1, 60)), SamplingParams(temperature=0.8, max_tokens=30, ignore_eos=True))
    driver.step()
    among = driver.add(prompt, sampling)
    driver.run()
    assert driver.tokens(among) == driver.tokens(alone)
