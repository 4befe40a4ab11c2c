"""Steps that are made ready while the device computes the one before: texts, blocks and endings are those of an engine
that waits for each step."""

from __future__ import annotations

import random

import pytest

from tests.text_engine.engine_driver import Answer, EngineDriver
from tests.text_engine.fake_device import VOCABULARY, FakeDevice
from tests.text_engine.test_text_engine import Words
from tests.tiny_models import byte_tokenizer
from vfastml.engine.dispatch_replies import Delta, Failed, Finished, Limits
from vfastml.engine.dispatch_requests import SamplingParams
from vfastml.text_engine.engine_loader import LoadedEngine
from vfastml.text_engine.prompt_encoder import PromptEncoder
from vfastml.text_engine.scheduler import ScheduledBatch
from vfastml.text_engine.text_engine import TextEngine

BLOCK = 4
END = 7
LETTERS = "abcdefghijklmnopqrstuvwxyz"


def letters(tokens: list[int]) -> str:
    return "".join(LETTERS[token] for token in tokens if token != END)


def engine_on_a_device(
    *, overlap: bool, num_blocks: int = 64, max_num_seqs: int = 6, budget: int = 16
) -> tuple[EngineDriver, FakeDevice]:
    device = FakeDevice(BLOCK)
    limits = Limits(256, max_num_seqs, budget, num_blocks, BLOCK)
    engine = TextEngine(device, Words(letters), limits, [END], launch=device.launch if overlap else None)
    driver = EngineDriver(LoadedEngine(engine, PromptEncoder(byte_tokenizer()), limits, "cpu", "float32", "hf"))
    return driver, device


def random_sampling(rng: random.Random) -> SamplingParams:
    return rng.choice(
        [
            SamplingParams(temperature=0.0, max_tokens=rng.randrange(1, 40), ignore_eos=True),
            SamplingParams(temperature=1.0, seed=3, max_tokens=rng.randrange(1, 40), ignore_eos=True),
            SamplingParams(max_tokens=30, stop=(rng.choice(LETTERS[:VOCABULARY]),)),
            SamplingParams(max_tokens=30, stop_token_ids=(rng.randrange(VOCABULARY),)),
            SamplingParams(max_tokens=12, min_tokens=4),
            SamplingParams(max_tokens=12, presence_penalty=0.5),
            SamplingParams(max_tokens=0),
        ]
    )


def answers(seed: int, *, overlap: bool) -> tuple[list[Answer], FakeDevice, EngineDriver]:
    """Of requests that come now and then, over too few blocks."""
    rng = random.Random(seed)
    driver, device = engine_on_a_device(overlap=overlap, num_blocks=18)
    prefixes = [[rng.randrange(VOCABULARY) for _ in range(20)] for _ in range(3)]
    for _ in range(25):
        prompt = [*rng.choice(prefixes)[: rng.randrange(1, 20)], rng.randrange(VOCABULARY)]
        driver.add(prompt, random_sampling(rng), n=rng.choice([1, 1, 1, 3]), stream=rng.random() < 0.5)
        for _ in range(rng.randrange(6)):
            driver.step()
    driver.run()
    return list(driver.answers.values()), device, driver


@pytest.mark.parametrize("seed", range(40))
def test_texts_are_those_of_an_engine_that_waits(seed: int) -> None:
    expected, plain, _ = answers(seed, overlap=False)
    found, device, driver = answers(seed, overlap=True)
    for one, other in zip(found, expected, strict=True):
        assert (one.tokens, one.texts, one.reasons) == (other.tokens, other.texts, other.reasons)
        assert isinstance(one.end, Finished)
        assert isinstance(other.end, Finished)
        assert one.end.usage.completion_tokens == other.end.usage.completion_tokens
    assert plain.most_not_fetched == 1
    assert device.most_not_fetched == 2
    assert device.num_not_fetched == 0
    assert driver.engine.load().preemptions > 0


def test_a_step_is_launched_before_the_tokens_of_the_last_one_are_known() -> None:
    driver, device = engine_on_a_device(overlap=True)
    driver.add([1, 2, 3], SamplingParams(max_tokens=4, ignore_eos=True))
    assert driver.step() == []
    assert device.num_not_fetched == 1
    for _ in range(3):
        (delta,) = driver.step()
        assert isinstance(delta, Delta)
        assert device.num_not_fetched == 1
    # the last token ends the text, so no further step was launched beside it
    replies = driver.step()
    assert [type(reply) for reply in replies] == [Delta, Finished]
    assert device.num_not_fetched == 0
    assert not driver.engine.has_work


def test_an_end_that_is_foreseen_leaves_no_step_without_work() -> None:
    """The next in line takes the seat as soon as the last token is on its way."""
    driver, device = engine_on_a_device(overlap=True, max_num_seqs=1)
    for number in range(3):
        driver.add([number], SamplingParams(max_tokens=2, ignore_eos=True))
    for _ in range(6):
        driver.step()
        assert device.num_not_fetched == 1
    driver.step()
    assert device.num_not_fetched == 0
    assert not driver.engine.has_work


def test_an_end_that_nobody_foresaw_costs_one_step_that_nobody_sees() -> None:
    driver, device = engine_on_a_device(overlap=True)
    stops = driver.add([1, 2, 3], SamplingParams(max_tokens=200, stop_token_ids=tuple(range(VOCABULARY))))
    driver.step()
    driver.step()
    assert isinstance(driver.answers[stops].end, Finished)
    assert driver.tokens(stops) == driver.answers[stops].tokens[0][:1]
    assert device.num_not_fetched == 1
    assert driver.engine.has_work  # the step that is on its way is waited for
    driver.run()
    assert device.num_not_fetched == 0


@pytest.mark.parametrize(
    "sampling",
    [
        SamplingParams(max_tokens=6, frequency_penalty=0.5, ignore_eos=True),
        SamplingParams(max_tokens=6, logprobs=2, ignore_eos=True),
        SamplingParams(max_tokens=6, min_tokens=6),
        SamplingParams(max_tokens=6, typical_p=0.5, ignore_eos=True),
    ],
)
def test_what_needs_the_tokens_before_it_waits_for_them(sampling: SamplingParams) -> None:
    driver, device = engine_on_a_device(overlap=True)
    driver.add([1, 2, 3], sampling)
    driver.add([4, 5], SamplingParams(max_tokens=6, ignore_eos=True))
    while driver.engine.has_work:
        driver.step()
        assert device.num_not_fetched == 0
    assert device.most_not_fetched == 1


@pytest.mark.parametrize("seed", range(10))
def test_cancelling_at_any_time_leaves_the_others_alone(seed: int) -> None:
    rng = random.Random(seed)
    driver, _ = engine_on_a_device(overlap=True, num_blocks=24)
    alone = {}
    for number in range(12):
        prompt = [number, *range(rng.randrange(1, 12))]
        sampling = SamplingParams(temperature=0.0, max_tokens=15, ignore_eos=True)
        request_id = driver.add(prompt, sampling, n=rng.choice([1, 3]))
        lonely, _ = engine_on_a_device(overlap=False)
        lonely.add(prompt, sampling, n=3)
        lonely.run()
        alone[request_id] = lonely.answers["r0"].tokens
        for _ in range(rng.randrange(4)):
            driver.step()
        open_ones = [name for name, answer in driver.answers.items() if name in alone and answer.end is None]
        if open_ones and rng.random() < 0.4:
            cancelled = rng.choice(open_ones)
            assert driver.engine.cancel(cancelled)
            del driver.answers[cancelled]
            driver.answers[f"gone{number}"] = Answer()  # keeps later names free
    driver.run()
    for name, answer in driver.answers.items():
        if name in alone:
            assert answer.tokens.items() <= alone[name].items()


def test_a_name_that_is_used_again_gets_nothing_of_the_old_request() -> None:
    driver, _ = engine_on_a_device(overlap=True)
    sampling = SamplingParams(temperature=0.0, max_tokens=5, ignore_eos=True)
    first = driver.add([1, 2], sampling)
    driver.step()
    driver.engine.cancel(first)
    driver.answers.clear()
    assert driver.add([3, 4, 5], sampling) == first
    driver.run()
    lonely, _ = engine_on_a_device(overlap=False)
    lonely.add([3, 4, 5], sampling)
    lonely.run()
    assert driver.tokens(first) == lonely.tokens("r0")


@pytest.mark.parametrize("seed", range(10))
def test_a_launch_that_raises_costs_only_those_at_fault(seed: int) -> None:
    rng = random.Random(seed)
    driver, device = engine_on_a_device(overlap=True, num_blocks=32)
    expected, _ = engine_on_a_device(overlap=False, num_blocks=32)

    def poisoned(batch: ScheduledBatch) -> None:
        if any(row.sequence.tokens[0] == 0 and row.sequence.length > 6 for row in batch.rows):
            raise RuntimeError("poisoned")

    device.fault = poisoned
    for number in range(10):
        prompt = [number % 4, *(rng.randrange(1, VOCABULARY) for _ in range(4))]
        for one in (driver, expected):
            one.add(prompt, SamplingParams(temperature=0.0, max_tokens=12, stop_token_ids=(3,)))
        driver.step()
        driver.step()
    driver.run()
    expected.run()
    num_failed = 0
    for name, answer in driver.answers.items():
        if isinstance(answer.end, Failed):
            num_failed += 1
            continue
        assert answer.tokens == expected.answers[name].tokens
    assert 0 < num_failed <= 3


def test_memory_that_runs_out_makes_steps_smaller() -> None:
    driver, device = engine_on_a_device(overlap=True, budget=32)
    expected, _ = engine_on_a_device(overlap=False)

    def no_memory(batch: ScheduledBatch) -> None:
        if sum(row.num_tokens for row in batch.rows) > 5:
            raise MemoryError

    device.fault = no_memory
    for number in range(4):
        for one in (driver, expected):
            one.add([number] * 14, SamplingParams(temperature=0.0, max_tokens=9, ignore_eos=True))
    driver.run()
    expected.run()
    assert [answer.tokens for answer in driver.answers.values()] == [
        answer.tokens for answer in expected.answers.values()
    ]
