"""Beam search in the engine finds what transformers' `generate` finds, whatever else is in the batch."""

from __future__ import annotations

import json
import random
import shutil
from pathlib import Path
from typing import Any

import pytest
from transformers import PreTrainedModel

from tests.oracle import load_oracle
from tests.text_engine.beam_driver import BLOCK_BYTES, BeamDriver
from tests.text_engine.beam_oracle import Texts, beam_generate, search_plainly
from tests.tiny_models import byte_tokenizer
from vfastml.engine.dispatch_replies import Finished
from vfastml.engine.dispatch_requests import BeamSearch, SamplingParams

ENDS = [257, *range(40, 60), 101, 180]


@pytest.fixture(scope="module")
def folder(tiny_models: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model with so many end tokens that its texts do end."""
    folder = tmp_path_factory.mktemp("beams") / "llama"
    shutil.copytree(tiny_models["llama"], folder)
    path = folder / "generation_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"eos_token_id": ENDS}))
    return folder


@pytest.fixture(scope="module")
def oracle(folder: Path) -> PreTrainedModel:
    return load_oracle(folder)


def assert_same_texts(got: Texts, expected: Texts) -> None:
    assert [tokens for tokens, _ in got] == [tokens for tokens, _ in expected]
    assert [score for _, score in got] == pytest.approx([score for _, score in expected], abs=1e-3)


def random_search(rng: random.Random) -> tuple[BeamSearch, int]:
    width = rng.choice([2, 3, 4])
    early_stopping: Any = rng.choice([False, True, "never"])
    search = BeamSearch(width, rng.choice([0.0, 0.5, 1.0, 2.0, -0.5]), early_stopping)
    return search, rng.randrange(1, width + 1)


def random_prompt(rng: random.Random) -> list[int]:
    return [rng.randrange(256) for _ in range(rng.choice([1, 2, 15, 16, 17, 40]))]


@pytest.mark.parametrize(
    ("seed", "config"),
    [
        (1, {}),
        (2, {"max_num_batched_tokens": 5}),
        (3, {"kv_cache_memory": 14 * BLOCK_BYTES, "max_num_batched_tokens": 32, "max_model_len": 96}),
        (4, {"max_num_seqs": 4}),
        (5, {"enable_prefix_caching": False, "kv_cache_memory": 14 * BLOCK_BYTES, "max_model_len": 96}),
    ],
    ids=["roomy", "chunks", "few blocks", "few seats", "no prefix cache"],
)
def test_equals_generate(folder: Path, oracle: PreTrainedModel, seed: int, config: dict[str, Any]) -> None:
    rng = random.Random(seed)
    driver = BeamDriver.load(folder, **config)
    asked = []
    for _ in range(20):
        (search, n), prompt, num_tokens = random_search(rng), random_prompt(rng), rng.choice([1, 2, 8, 25, 50])
        ignore_eos = rng.random() < 0.2
        sampling = SamplingParams(max_tokens=num_tokens, ignore_eos=ignore_eos)
        asked.append((driver.add(prompt, sampling, beams=search, n=n), prompt, num_tokens, search, n, ignore_eos))
        if rng.random() < 0.5:
            driver.add(random_prompt(rng), SamplingParams(max_tokens=num_tokens, seed=seed))
    driver.run()
    num_ended = 0
    for request_id, prompt, num_tokens, search, n, ignore_eos in asked:
        expected = beam_generate(
            oracle,
            prompt,
            num_tokens,
            [] if ignore_eos else ENDS,
            num_beams=search.width,
            length_penalty=search.length_penalty,
            early_stopping=search.early_stopping,
            num_return_sequences=n,
        )
        assert_same_texts(driver.texts(request_id), expected)
        num_ended += sum(reason == "stop" for reason, _ in driver.answers[request_id].reasons.values())
    assert num_ended > 5
    load_ = driver.engine.load()
    assert (load_.preemptions > 0) == ("kv_cache_memory" in config)


def prompts(seed: int, count: int) -> list[list[int]]:
    rng = random.Random(seed)
    return [random_prompt(rng) for _ in range(count)]


@pytest.mark.parametrize("penalty", [0.0, 0.7, 5.0])
def test_groups_are_told_what_earlier_ones_have_chosen(folder: Path, oracle: PreTrainedModel, penalty: float) -> None:
    driver = BeamDriver.load(folder, kv_cache_memory=40 * BLOCK_BYTES, max_num_batched_tokens=16)
    search = BeamSearch(6, groups=3, diversity_penalty=penalty)
    asked = {driver.add(prompt, SamplingParams(max_tokens=12), beams=search, n=6): prompt for prompt in prompts(8, 5)}
    driver.run()
    for request_id, prompt in asked.items():
        num_kept = (1 + len(ENDS)) * 2
        expected = search_plainly(oracle, prompt, 12, num_kept, lambda tokens: tokens[-1] in ENDS, search)
        assert_same_texts(driver.texts(request_id), expected)
        firsts = {tokens[0] for tokens, _ in driver.texts(request_id)}
        assert len(firsts) > 1 if penalty == 5.0 else firsts


STOP = ("a", "q", "X\x01", "é", "0", "1", "2", "3", "4")


def test_stop_strings_end_texts_as_end_tokens_do(folder: Path, oracle: PreTrainedModel) -> None:
    driver = BeamDriver.load(folder)
    decode = byte_tokenizer().decode

    def ends(tokens: list[int]) -> bool:
        text = decode(tokens, skip_special_tokens=True)
        return len(tokens) > 2 and any(text.endswith(stop) for stop in STOP)

    search = BeamSearch(3)
    sampling = SamplingParams(max_tokens=20, stop=STOP, ignore_eos=True, min_tokens=2)
    asked = {driver.add(prompt, sampling, beams=search, n=3): prompt for prompt in prompts(9, 8)}
    driver.run()
    reasons: list[tuple[str | None, str | None]] = []
    for request_id, prompt in asked.items():
        assert_same_texts(driver.texts(request_id), search_plainly(oracle, prompt, 20, 6, ends, search))
        answer = driver.answers[request_id]
        reasons += answer.reasons.values()
        for index, (reason, stop) in answer.reasons.items():
            assert (reason == "stop") == ends(answer.tokens[index]) == (stop is not None)
            text = decode(answer.tokens[index], skip_special_tokens=True)
            assert answer.texts[index] == (text.removesuffix(stop) if stop else text)
    assert {reason for reason, _ in reasons} == {"stop", "length"}


def test_what_is_certain_is_streamed_and_nothing_else(folder: Path) -> None:
    """What has been sent cannot be taken back: the choices' tokens are those of the search without a stream."""
    driver = BeamDriver.load(folder)
    sampling = SamplingParams(max_tokens=40, ignore_eos=True)
    for prompt in prompts(10, 4):
        streamed, at_once = (driver.add(prompt, sampling, beams=BeamSearch(3), n=2, stream=on) for on in (True, False))
        driver.run()
        assert driver.texts(streamed) == driver.texts(at_once)
        assert driver.answers[streamed].texts == driver.answers[at_once].texts
        assert driver.answers[at_once].num_deltas == 2
    assert any(driver.num_streamed.values())


def test_usage_counts_the_answered_texts(folder: Path) -> None:
    driver = BeamDriver.load(folder)
    prompt = [5] * 33
    for cached in (0, 32):
        request_id = driver.add(prompt, SamplingParams(max_tokens=9), beams=BeamSearch(4), n=2)
        driver.run()
        end = driver.answers[request_id].end
        assert isinstance(end, Finished)
        answered = sum(len(tokens) for tokens, _ in driver.texts(request_id))
        assert (end.usage.prompt_tokens, end.usage.completion_tokens, end.usage.cached_tokens) == (33, answered, cached)


@pytest.mark.parametrize("seed", range(4))
def test_cancelled_beams_leave_nothing_and_nobody_notices(folder: Path, seed: int) -> None:
    rng = random.Random(seed)
    config = {"kv_cache_memory": 14 * BLOCK_BYTES, "max_model_len": 96, "max_num_batched_tokens": 24}
    sampling = SamplingParams(max_tokens=30, ignore_eos=True)
    alone = BeamDriver.load(folder, **config)
    expected = []
    for prompt in prompts(seed, 4):
        request_id = alone.add(prompt, sampling, beams=BeamSearch(3))
        alone.run()
        expected.append(alone.texts(request_id))
    driver = BeamDriver.load(folder, **config)
    kept = [driver.add(prompt, sampling, beams=BeamSearch(3)) for prompt in prompts(seed, 4)]
    dropped = [driver.add(prompt, sampling, beams=BeamSearch(4)) for prompt in prompts(seed + 50, 4)]
    while driver.engine.has_work:
        driver.step()
        if rng.random() < 0.1 and dropped:
            driver.engine.cancel(dropped.pop())
            driver.engine.check_integrity()
    driver.run()
    for request_id, texts in zip(kept, expected, strict=True):
        assert_same_texts(driver.texts(request_id), texts)
