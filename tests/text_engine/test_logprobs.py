"""Log probabilities that a request asks for: of what is generated and of the prompt, as transformers computes them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from tests.text_engine.engine_driver import EngineDriver
from vfastml.engine.dispatch_replies import Delta, PlaceLogprobs
from vfastml.engine.dispatch_requests import SamplingParams
from vfastml.text_engine.logprob_report import place_logprobs
from vfastml.text_engine.sampling import SampledToken

SHORT = SamplingParams(temperature=0.0, max_tokens=40)
PROMPT = [5, 9, 31, 7, 7, 40, 2, 11, 90, 6] * 9


class LogprobDriver(EngineDriver):
    """Keeps what the deltas report."""

    def step(self) -> Any:
        replies = super().step()
        for delta in replies:
            if isinstance(delta, Delta):
                key = (delta.request_id, delta.index)
                self.generated.setdefault(key, []).extend(delta.logprobs or [])
                if delta.prompt_logprobs is not None:
                    assert key not in self.of_prompt, "given twice"
                    self.of_prompt[key] = delta.prompt_logprobs
        return replies

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.generated: dict[tuple[str, int], list[PlaceLogprobs]] = {}
        self.of_prompt: dict[tuple[str, int], list[PlaceLogprobs]] = {}


@pytest.fixture(scope="module")
def folder(tiny_models: dict[str, Path]) -> Path:
    return tiny_models["llama"]


def load(folder: Path, **config: Any) -> LogprobDriver:
    driver = LogprobDriver.load(folder, dtype="float32", **config)
    assert isinstance(driver, LogprobDriver)
    return driver


def reference(folder: Path, tokens: list[int]) -> torch.Tensor:
    """[len(tokens), vocab_size]: the log probabilities of what follows each token."""
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    with torch.inference_mode():
        return model(torch.tensor([tokens])).logits[0].log_softmax(-1)


def assert_place(place: PlaceLogprobs, row: torch.Tensor, token: int, num_top: int) -> None:
    assert place.chosen.token_id == token
    assert place.chosen.logprob == pytest.approx(float(row[token]), abs=1e-4)
    assert place.rank == 1 + int((row > row[token]).sum())
    best = row.topk(num_top)
    assert [one.token_id for one in place.top] == best.indices.tolist()
    assert [one.logprob for one in place.top] == pytest.approx(best.values.tolist(), abs=1e-4)


@pytest.mark.parametrize("num_top", [0, 1, 5, 20])
def test_of_generated_tokens_are_the_models_own(folder: Path, num_top: int) -> None:
    driver = load(folder)
    sampling = SamplingParams(
        max_tokens=12, temperature=1.3, seed=4, top_k=30, logit_bias={7: 3.0}, ignore_eos=True, logprobs=num_top
    )
    request_id = driver.add(PROMPT, sampling, n=2)
    driver.run()
    for index in range(2):
        tokens = driver.tokens(request_id, index)
        rows = reference(folder, PROMPT + tokens)[len(PROMPT) - 1 : -1]
        places = driver.generated[request_id, index]
        assert len(places) == len(tokens) == 12
        for place, row, token in zip(places, rows, tokens, strict=True):
            assert_place(place, row, token, num_top)


@pytest.mark.parametrize("budget", [16, 2048])
@pytest.mark.parametrize("max_tokens", [0, 3])
def test_of_a_prompt_whatever_the_chunks_and_the_cache(folder: Path, budget: int, max_tokens: int) -> None:
    driver = load(folder, max_num_batched_tokens=budget, max_num_seqs=8)
    rows = reference(folder, PROMPT)
    driver.add(PROMPT, SHORT)  # the prefix cache has it now
    driver.run()
    sampling = SamplingParams(temperature=0.0, max_tokens=max_tokens, prompt_logprobs=3)
    request_id = driver.add(PROMPT, sampling, n=2)
    driver.run()
    for index in range(2):
        first, *places = driver.of_prompt[request_id, index]
        assert (first.rank, first.chosen.token_id, first.top) == (0, PROMPT[0], [])
        for place, row, token in zip(places, rows[:-1], PROMPT[1:], strict=True):
            assert_place(place, row, token, 3)
        assert len(driver.tokens(request_id, index)) == max_tokens
        assert driver.answers[request_id].reasons[index] == ("length", None)


def test_prompt_alone_costs_no_token_and_leaves_nothing_behind(folder: Path) -> None:
    driver = load(folder)
    request_id = driver.add(PROMPT, SamplingParams(max_tokens=0))
    driver.run()
    assert (driver.text(request_id), driver.tokens(request_id)) == ("", [])
    assert driver.answers[request_id].end.usage.completion_tokens == 0  # type: ignore[union-attr]


def test_requests_that_ask_change_nothing_for_those_that_do_not(folder: Path) -> None:
    alone = load(folder)
    expected = [alone.add(PROMPT[start:], SHORT) for start in range(6)]
    for _ in expected:
        alone.run()
    mixed = load(folder, max_num_batched_tokens=32, max_num_seqs=16)
    plain = []
    for start in range(6):
        plain.append(mixed.add(PROMPT[start:], SHORT))
        mixed.add(PROMPT[start:], SamplingParams(temperature=0.0, logprobs=2, prompt_logprobs=1, max_tokens=9))
    mixed.run()
    assert [mixed.tokens(one) for one in plain] == [alone.tokens(one) for one in expected]
    assert all(not mixed.generated[one, 0] for one in plain)


def test_impossible_is_a_number_that_json_has() -> None:
    never = SampledToken(3, -float("inf"), 50, ((1, -0.5), (2, -float("inf"))))
    place = place_logprobs(never, lambda token: bytes([token]))
    assert place.chosen.logprob == -9999.0
    assert [one.logprob for one in place.top] == [-0.5, -9999.0]
    assert place.chosen.token == b"\x03"
