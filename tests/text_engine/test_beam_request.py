"""What a search promises beside its result: one row's trouble, time that runs out, constraints."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest

from tests.text_engine.beam_driver import BLOCK_BYTES, BeamDriver
from tests.text_engine.beam_oracle import Texts
from tests.text_engine.faulty_runner import Fault, broken_by, no_memory_above
from tests.text_engine.one_of import OneOf
from vfastml.engine.dispatch_replies import Failed, Finished
from vfastml.engine.dispatch_requests import BeamSearch, SamplingParams
from vfastml.text_engine import request_history
from vfastml.text_engine.scheduler import ScheduledBatch

SAMPLING = SamplingParams(max_tokens=16, ignore_eos=True)
PROMPTS = [[3] * 9, [1, 2] * 10, [77, 4, 9], [5] * 30]


@pytest.fixture(scope="module")
def folder(tiny_models: dict[str, Path]) -> Path:
    return tiny_models["llama"]


@pytest.fixture(scope="module")
def expected(folder: Path) -> list[Texts]:
    """Of each prompt alone."""
    driver = BeamDriver.load(folder)
    texts = []
    for prompt in PROMPTS:
        request_id = driver.add(prompt, SAMPLING, beams=BeamSearch(3), n=3)
        driver.run()
        texts.append(driver.texts(request_id))
    return texts


def load(folder: Path) -> BeamDriver:
    return BeamDriver.load(folder, kv_cache_memory=16 * BLOCK_BYTES, max_model_len=96, max_num_batched_tokens=32)


def add_all(driver: BeamDriver) -> list[str]:
    return [driver.add(prompt, SAMPLING, beams=BeamSearch(3), n=3) for prompt in PROMPTS]


def assert_answered(driver: BeamDriver, ids: list[str], expected: list[Texts]) -> None:
    for request_id, texts in zip(ids, expected, strict=True):
        assert isinstance(driver.answers[request_id].end, Finished)
        got = driver.texts(request_id)
        assert [tokens for tokens, _ in got] == [tokens for tokens, _ in texts]
        assert [score for _, score in got] == pytest.approx([score for _, score in texts], abs=1e-3)


@pytest.mark.parametrize("row", [0, 1, 2])
def test_row_that_raises_fails_its_search_alone(folder: Path, expected: list[Texts], row: int) -> None:
    driver = load(folder)

    def fault(batch: ScheduledBatch) -> None:
        broken = [one.sequence for one in batch.rows if one.sequence.request_id == "r1" and one.sequence.index == row]
        if any(sequence.num_generated >= 3 * bool(row) for sequence in broken):
            raise RuntimeError("broken row")

    broken_by(driver, fault)
    ids = add_all(driver)
    driver.run()
    end = driver.answers[ids[1]].end
    assert isinstance(end, Failed)
    assert "broken row" not in end.message
    del ids[1]
    assert_answered(driver, ids, [texts for number, texts in enumerate(expected) if number != 1])


def by_lot(seed: int) -> Fault:
    """Every third step fails, and all its parts with it one time in four."""
    rng = random.Random(seed)

    def fault(batch: ScheduledBatch) -> None:
        if len(batch.rows) > 1 and rng.random() < 0.3:
            raise RuntimeError("bad luck")

    return fault


@pytest.mark.parametrize("fault", [by_lot(1), by_lot(2), no_memory_above(9)], ids=["seed 1", "seed 2", "no memory"])
def test_steps_that_fail_change_no_search(folder: Path, expected: list[Texts], fault: Fault) -> None:
    driver = load(folder)
    faulty = broken_by(driver, fault)
    ids = add_all(driver)
    driver.run()
    assert faulty.num_failed > 0
    assert_answered(driver, ids, expected)


def test_search_that_runs_out_of_time_answers_with_what_it_has(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    driver = BeamDriver.load(folder)

    class Clock:
        def monotonic(self) -> float:
            return float(driver.engine.load().steps)

    monkeypatch.setattr(request_history, "time", Clock())
    sampling = SamplingParams(max_tokens=16, ignore_eos=True, max_time=4.5)
    request_id = driver.add([5, 6], sampling, beams=BeamSearch(3), n=2)
    driver.run()
    assert [len(tokens) for tokens, _ in driver.texts(request_id)] == [5, 5]
    assert set(driver.answers[request_id].reasons.values()) == {("length", None)}
    cut = driver.add([5, 6], SamplingParams(max_tokens=5, ignore_eos=True), beams=BeamSearch(3), n=2)
    driver.run()
    assert driver.texts(cut) == driver.texts(request_id)


WORDS = [[70, 71, 72], [70, 80], [90, 91, 92, 93], [90, 71, 7, 8, 9]]


@pytest.mark.parametrize("n", [1, 3])
def test_beams_keep_to_a_constraint_each_in_its_own_place(folder: Path, n: int) -> None:
    driver = BeamDriver.load(folder)
    request_id = driver.add([5, 6], SAMPLING, beams=BeamSearch(4), n=n, matcher=OneOf(WORDS))
    driver.run()
    texts = [tokens for tokens, _ in driver.texts(request_id)]
    assert len({tuple(text) for text in texts}) == n
    assert all(text in WORDS for text in texts)
    assert set(driver.answers[request_id].reasons.values()) == {("stop", None)}
    scores = [score for _, score in driver.texts(request_id)]
    assert scores == sorted(scores, reverse=True)


def test_fewer_possible_texts_than_choices_are_given_again(folder: Path) -> None:
    driver = BeamDriver.load(folder)
    request_id = driver.add([5, 6], SAMPLING, beams=BeamSearch(3), n=3, matcher=OneOf(WORDS[:2]))
    driver.run()
    texts = [tokens for tokens, _ in driver.texts(request_id)]
    assert sorted(texts[:2]) == WORDS[:2]
    assert texts[2] == texts[1]


def test_search_without_any_possible_text_fails_alone(folder: Path, expected: list[Texts]) -> None:
    driver = BeamDriver.load(folder)
    ids = add_all(driver)
    request_id = driver.add([5, 6], SAMPLING, beams=BeamSearch(3), matcher=OneOf([]))
    driver.run()
    assert isinstance(driver.answers[request_id].end, Failed)
    assert_answered(driver, ids, expected)


def test_search_keeps_its_seats_however_many_beams_it_has(folder: Path) -> None:
    driver = BeamDriver.load(folder, max_num_seqs=4)
    request_id = driver.add([5, 6], SAMPLING, beams=BeamSearch(4), matcher=OneOf(WORDS))
    request: Any = driver.engine._requests[request_id]
    widths = set()
    while request.open_sequences:
        assert sum(row.num_seats for row in request.open_sequences) == 4
        assert all(row.num_seats >= 1 for row in request.open_sequences)
        widths.add(len(request.open_sequences))
        driver.step()
    assert len(widths) > 1
