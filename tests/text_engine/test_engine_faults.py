"""A model that raises, or runs out of memory: whoever is not at fault gets the tokens of an undisturbed run."""

from __future__ import annotations

import gc
import logging
import random
import weakref
from pathlib import Path

import pytest
import torch

from tests.text_engine.engine_driver import Answer, EngineDriver
from tests.text_engine.faulty_runner import (
    POISON,
    Fault,
    FaultyRunner,
    always,
    broken_by,
    late_poison,
    no_memory_above,
    no_memory_for_poison,
    poison,
    tokens_of,
)
from vfastml.engine.dispatch_replies import Failed, Finished
from vfastml.engine.dispatch_requests import SamplingParams
from vfastml.text_engine.retried_step import attempt
from vfastml.text_engine.sampling import SampledToken
from vfastml.text_engine.scheduler import ScheduledBatch

BUDGET = 48
NUM_REQUESTS = 16


def new_driver(folder: Path, num_blocks: int | None = None) -> EngineDriver:
    block = 4 * 2 * 2 * 8 * 3 * 16  # bytes: float32, keys and values, heads, head_dim, layers, tokens
    memory = 2_000_000 if num_blocks is None else num_blocks * block
    length = None if num_blocks is None else 16 * num_blocks
    return EngineDriver.load(
        folder, dtype="float32", max_num_batched_tokens=BUDGET, kv_cache_memory=memory, max_model_len=length
    )


def add_all(driver: EngineDriver) -> None:
    """Short and long prompts, greedy and seeded, some with several choices, a few steps apart."""
    for number in range(NUM_REQUESTS):
        sampling = SamplingParams(
            temperature=0.0 if number % 2 else 1.0, seed=number, max_tokens=12 + number, ignore_eos=True
        )
        prompt = [(number + 7 * place) % 90 for place in range(1 + (37 * number) % 70)]
        driver.add(prompt, sampling, n=3 if number % 5 == 0 else 1)
        if number % 3 == 0 and not driver.loaded.limits.num_blocks < 64:
            driver.step()


def texts(driver: EngineDriver) -> dict[str, dict[int, list[int]]]:
    return {request_id: answer.tokens for request_id, answer in driver.answers.items()}


@pytest.fixture(scope="module")
def undisturbed(tiny_models: dict[str, Path]) -> dict[str, dict[int, list[int]]]:
    driver = new_driver(tiny_models["llama"])
    add_all(driver)
    driver.run()
    return texts(driver)


def failed(answer: Answer) -> Failed:
    assert isinstance(answer.end, Failed)
    return answer.end


# -- one request breaks the step


@pytest.mark.rule("S12")
@pytest.mark.parametrize("num_poisoned", [1, 2])
@pytest.mark.parametrize("n", [1, 3])
@pytest.mark.parametrize("fault", [poison, late_poison])
def test_request_that_breaks_the_step_fails_alone(
    tiny_models: dict[str, Path],
    undisturbed: dict[str, dict[int, list[int]]],
    fault: Fault,
    n: int,
    num_poisoned: int,
) -> None:
    driver = new_driver(tiny_models["llama"])
    faulty = broken_by(driver, fault)
    add_all(driver)
    seeded = SamplingParams(seed=5, max_tokens=30, ignore_eos=True)
    poisoned = [driver.add([POISON] * 60, seeded, n=n) for _ in range(num_poisoned)]
    driver.run()
    for request_id in poisoned:
        end = failed(driver.answers.pop(request_id))
        assert (end.kind, end.message) == ("InternalServerError", "The request could not be completed.")
    assert texts(driver) == undisturbed
    assert all(isinstance(answer.end, Finished) for answer in driver.answers.values())
    assert faulty.num_failed < 3 * num_poisoned * n * NUM_REQUESTS.bit_length()


def test_step_that_breaks_once_costs_nobody_anything(
    tiny_models: dict[str, Path], undisturbed: dict[str, dict[int, list[int]]]
) -> None:
    rng = random.Random(1)

    def now_and_then(batch: ScheduledBatch) -> None:
        if len(batch.rows) > 1 and rng.random() < 0.3:
            raise RuntimeError("a hiccup")

    driver = new_driver(tiny_models["llama"])
    faulty = broken_by(driver, now_and_then)
    add_all(driver)
    driver.run()
    assert faulty.num_failed > 10
    assert texts(driver) == undisturbed


@pytest.mark.rule("S12")
def test_requests_that_all_break_fail_and_the_next_one_is_fine(tiny_models: dict[str, Path]) -> None:
    """None of them got through, but the model computes what nobody has poisoned."""
    driver = new_driver(tiny_models["llama"])
    sampling = SamplingParams(temperature=0.0, max_tokens=8, ignore_eos=True)
    first = driver.add([1, 2, 3], sampling)
    driver.run()
    broken_by(driver, poison)
    poisoned = [driver.add([POISON, number], sampling) for number in range(10)]
    driver.run()
    assert {failed(driver.answers[request_id]).kind for request_id in poisoned} == {"InternalServerError"}
    again = driver.add([1, 2, 3], sampling)
    driver.run()
    assert driver.tokens(again) == driver.tokens(first)


@pytest.mark.rule("S12")
@pytest.mark.parametrize("num_requests", [1, 5])
def test_model_that_computes_nothing_any_more_is_raised(
    tiny_models: dict[str, Path], num_requests: int, caplog: pytest.LogCaptureFixture
) -> None:
    driver = new_driver(tiny_models["llama"])
    for number in range(num_requests):
        driver.add([number] * 20)
    driver.step()
    broken_by(driver, always)
    with pytest.raises(RuntimeError, match="out of cheese"):
        driver.step()
    driver.engine.check_integrity()
    assert [record.levelno for record in caplog.records if record.levelno > logging.INFO] == [logging.WARNING]


def test_start_hears_what_the_model_raises(tiny_models: dict[str, Path]) -> None:
    driver = new_driver(tiny_models["llama"])
    driver.add([POISON])
    broken_by(driver, poison)
    with pytest.raises(RuntimeError, match="poisoned"):
        driver.engine.step(recover=False)


# -- memory


@pytest.mark.parametrize("fits", [40, 9, 1])
def test_steps_get_smaller_until_they_fit(
    tiny_models: dict[str, Path], undisturbed: dict[str, dict[int, list[int]]], fits: int
) -> None:
    driver = new_driver(tiny_models["llama"])
    faulty = broken_by(driver, no_memory_above(fits))
    add_all(driver)
    driver.run()
    assert faulty.num_failed > 1
    assert texts(driver) == undisturbed
    assert driver.engine.load().steps > faulty.num_failed  # tried again only now and then


def test_full_size_comes_back(tiny_models: dict[str, Path]) -> None:
    driver = new_driver(tiny_models["llama"])
    shortage = broken_by(driver, no_memory_above(1))
    sampling = SamplingParams(temperature=0.0, max_tokens=300, ignore_eos=True)
    driver.add([1], sampling)
    driver.add([2] * 20, sampling)
    for _ in range(20):
        driver.step()
    driver.engine._runner = plenty = FaultyRunner(shortage._runner, no_memory_above(BUDGET))
    for _ in range(250):
        driver.step()
    driver.add([3] * 200, sampling)
    driver.step()
    assert plenty.num_failed == 0
    assert max(plenty.num_tokens) == BUDGET
    driver.run()


def test_request_that_never_fits_is_told_to_come_later_and_the_next_hundred_are_fine(
    tiny_models: dict[str, Path], undisturbed: dict[str, dict[int, list[int]]]
) -> None:
    driver = new_driver(tiny_models["llama"])
    broken_by(driver, no_memory_for_poison)
    add_all(driver)
    glutton = driver.add([POISON] * 30, n=3)
    driver.run()
    end = failed(driver.answers.pop(glutton))
    assert (end.kind, end.retry_after_s) == ("InternalServerTooBusyError", 1.0)
    assert texts(driver) == undisturbed
    sampling = SamplingParams(temperature=0.0, max_tokens=3, ignore_eos=True)
    later = [driver.add([number, 1, 2], sampling) for number in range(50)] + [driver.add([7], sampling)] * 50
    driver.run()
    assert all(isinstance(driver.answers[request_id].end, Finished) for request_id in later)


@pytest.mark.parametrize("seed", range(3))
def test_shortage_of_blocks_and_memory_and_poison_at_once(
    tiny_models: dict[str, Path], undisturbed: dict[str, dict[int, list[int]]], seed: int
) -> None:
    rng = random.Random(seed)

    def trouble(batch: ScheduledBatch) -> None:
        poison(batch)
        chance = rng.random()
        if chance < 0.1 and len(batch.rows) > 1:
            raise RuntimeError("a hiccup")
        if 0.1 < chance < 0.12 and tokens_of(batch) > 1:
            raise MemoryError

    driver = new_driver(tiny_models["llama"], num_blocks=12)
    broken_by(driver, trouble)
    add_all(driver)
    poisoned = driver.add([POISON] * 20, n=2)
    driver.run()
    assert driver.engine.load().preemptions > 0
    failed(driver.answers.pop(poisoned))
    assert texts(driver) == undisturbed


def test_what_a_failed_step_held_is_free_for_the_next_try() -> None:
    held: list[weakref.ref[torch.Tensor]] = []

    def run(batch: ScheduledBatch) -> list[list[SampledToken]]:
        large = torch.zeros(1000)
        held.append(weakref.ref(large))
        try:
            raise KeyError("inside")
        except KeyError as error:
            raise MemoryError from error

    gc.disable()
    try:
        outcome = attempt(run, ScheduledBatch((), ()))
        assert isinstance(outcome, MemoryError)
        assert held[0]() is None
    finally:
        gc.enable()
