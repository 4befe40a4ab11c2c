"""Requests of all kinds in one running batch: each gets what it gets alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.text_engine.beam_driver import BeamDriver
from tests.text_engine.one_of import OneOf
from vfastml.engine.dispatch_requests import BeamSearch, SamplingParams
from vfastml.engine.repetition_detection import RepetitionDetection

PROMPTS = [[3] * 9, [1, 2] * 10, [77, 4, 9], [5] * 30, list(range(60, 100)), [8]]

WORDS = [[70, 71, 72], [70, 80], [90, 91, 92, 93], [90, 71, 7, 8, 9]]


def kinds() -> list[tuple[SamplingParams, dict[str, Any]]]:
    """Of one request each: its sampling, and its other fields."""
    common: dict[str, Any] = {"max_tokens": 14, "seed": 11}
    greedy: dict[str, Any] = {**common, "temperature": 0.0}
    return [
        (SamplingParams(**greedy), {}),
        (SamplingParams(**greedy, ignore_eos=True), {}),
        (SamplingParams(**common, temperature=1.4), {}),
        (SamplingParams(**common, temperature=0.8, top_k=20, top_p=0.9, min_p=0.01), {"n": 4}),
        (SamplingParams(**common, typical_p=0.8), {"n": 2}),
        (SamplingParams(**common, frequency_penalty=1.5, presence_penalty=-0.5, repetition_penalty=1.2), {}),
        (SamplingParams(**greedy, logit_bias={5: 4.0, 7: -100.0}, logprobs=3), {}),
        (SamplingParams(**common, allowed_token_ids=(4, 5, 6, 7, 8), min_tokens=9), {}),
        (SamplingParams(**common, stop_token_ids=tuple(range(0, 60, 3)), include_stop_str_in_output=True), {}),
        (SamplingParams(**greedy, prompt_logprobs=2, output_scores=True), {}),
        (SamplingParams(**greedy, logit_bias={5: 100.0}, repetition_detection=RepetitionDetection(3)), {}),
        (SamplingParams(**common, stop=("e", "\x05"), min_tokens=2), {"n": 2}),
        (SamplingParams(**greedy, stop=("e", "a")), {"beams": BeamSearch(4), "n": 2}),
        (SamplingParams(**greedy, repetition_penalty=1.3, logprobs=1), {"beams": BeamSearch(3, 0.6, True), "n": 3}),
        (SamplingParams(**greedy, min_tokens=6), {"beams": BeamSearch(4, groups=2, diversity_penalty=0.5)}),
        (SamplingParams(max_tokens=0, prompt_logprobs=0), {}),
        (SamplingParams(**greedy), {"matcher": OneOf(WORDS)}),
        (SamplingParams(**common), {"matcher": OneOf(WORDS), "n": 3}),
        (SamplingParams(**greedy), {"matcher": OneOf(WORDS), "beams": BeamSearch(3), "n": 2}),
    ]


def outcome(driver: BeamDriver, request_id: str) -> Any:
    answer = driver.answers[request_id]
    return answer.texts, answer.tokens, answer.reasons


def run(folder: Path, together: bool, **config: Any) -> list[Any]:
    driver = BeamDriver.load(folder, max_model_len=96, **config)
    ids = []
    for number, (sampling, fields) in enumerate(kinds() * 2):
        ids.append(driver.add(PROMPTS[number % len(PROMPTS)], sampling, **fields))
        if not together:
            driver.run()
        elif number % 5 == 4:
            driver.step()
    driver.run()
    return [outcome(driver, request_id) for request_id in ids]


@pytest.fixture(scope="module")
def alone(tiny_models: dict[str, Path]) -> list[Any]:
    return run(tiny_models["llama"], together=False)


@pytest.mark.parametrize(
    "config",
    [
        {"max_num_seqs": 64},
        {"max_num_seqs": 9, "max_num_batched_tokens": 24},
        {"max_num_seqs": 12, "kv_cache_memory": 24 * 16 * 3 * 2 * 2 * 8 * 4},
        {"max_num_seqs": 16, "enable_prefix_caching": False},
    ],
    ids=["roomy", "few seats, chunks", "few blocks", "no prefix cache"],
)
def test_each_gets_what_it_gets_alone(tiny_models: dict[str, Path], alone: list[Any], config: dict[str, Any]) -> None:
    assert run(tiny_models["llama"], together=True, **config) == alone


def test_the_kinds_do_what_they_say(alone: list[Any]) -> None:
    reasons = {reason for _, _, ends in alone for reason in ends.values()}
    assert {("stop", "repetition"), ("length", None)} <= reasons
    assert any(isinstance(stop_reason, int) for _, stop_reason in reasons)
    assert any(isinstance(stop_reason, str) and stop_reason != "repetition" for _, stop_reason in reasons)
    for number, (sampling, fields) in enumerate(kinds()):
        if sampling.allowed_token_ids:
            assert set(alone[number][1][0]) <= set(sampling.allowed_token_ids)
        if "matcher" in fields:
            assert all(tokens in WORDS for tokens in alone[number][1].values())
