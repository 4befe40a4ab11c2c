"""The engine's promises to a request, with scripted tokens in place of a model, or with a tiny one."""

from __future__ import annotations

import random
import sys
from collections.abc import Callable
from collections.abc import Sequence as PySequence
from pathlib import Path
from types import FrameType
from typing import Any

import pytest
import torch

from tests.text_engine.engine_driver import Answer, EngineDriver
from tests.tiny_models import byte_tokenizer
from vfastml.engine.dispatch_replies import Delta, Failed, Finished, Limits
from vfastml.engine.dispatch_requests import SamplingParams, TextGenerationReq
from vfastml.text_engine import open_request, request_history
from vfastml.text_engine.batch_inputs import build_batch_inputs
from vfastml.text_engine.detokenizer import Decode, Detokenizer, Vocabulary, WindowDetokenizer
from vfastml.text_engine.encoded_request import EncodedRequest
from vfastml.text_engine.engine_loader import LoadedEngine
from vfastml.text_engine.prompt_encoder import PromptEncoder
from vfastml.text_engine.sampling import SampledToken, Sampling, settle_sampling
from vfastml.text_engine.scheduler import ScheduledBatch
from vfastml.text_engine.sequence import Sequence
from vfastml.text_engine.text_engine import TextEngine

WORDS = ["</s>", "he", "ll", "o w", "orld", "!", " a", "b", "bomb"]
END, HE, LL, O_W, ORLD, BANG, A, B, BOMB = range(len(WORDS))
HELLO = [HE, LL, O_W, ORLD, BANG]
BLOCK = 4

Script = Callable[[Sequence, int], int]
"""The next token of a sequence, or of the fork of that choice."""


def decode_words(tokens: list[int]) -> str:
    if BOMB in tokens:
        raise RuntimeError("no text for this")
    return "".join(WORDS[token % len(WORDS)] for token in tokens if token != END)


def saying(*tokens: int) -> Script:
    """Every choice says this, over and over."""
    return lambda sequence, choice: tokens[sequence.num_generated % len(tokens)]


def wandering(sequence: Sequence, choice: int) -> int:
    """Something that depends on all tokens so far, as a model's would."""
    return 1 + hash((tuple(sequence.tokens), choice if not sequence.num_generated else 0)) % (BOMB - 1)


class Words:
    """A vocabulary that is decoded so."""

    def __init__(self, decode: Decode) -> None:
        self._decode = decode

    def detokenizer(self, prompt: PySequence[int], *, keeps_special: bool = False) -> Detokenizer:
        return WindowDetokenizer(self._decode, prompt)

    def token_bytes(self, token: int) -> bytes:
        return WORDS[token % len(WORDS)].encode()


class ScriptedRunner:
    def __init__(self, script: Script) -> None:
        self.script = script

    def run(self, batch: ScheduledBatch) -> list[list[SampledToken]]:
        build_batch_inputs(batch, BLOCK, torch.device("cpu"))
        return [self._sampled(row.sequence) for row in batch.rows if row.samples]

    def parts(self) -> dict[str, tuple[object, str]]:
        return {}

    def _sampled(self, sequence: Sequence) -> list[SampledToken]:
        choices = range(sequence.index, sequence.index + 1 + sequence.forks)
        tokens = [self.script(sequence, choice) for choice in choices]
        return [SampledToken(token, -float(token) if sequence.sampling.output_scores else None) for token in tokens]


def scripted(
    script: Script,
    *,
    decode: Decode = decode_words,
    max_num_seqs: int = 8,
    budget: int = 16,
    num_blocks: int = 64,
    max_model_len: int = 256,
) -> EngineDriver:
    limits = Limits(max_model_len, max_num_seqs, budget, num_blocks, BLOCK)
    engine = TextEngine(ScriptedRunner(script), Words(decode), limits, [END])
    return EngineDriver(LoadedEngine(engine, PromptEncoder(byte_tokenizer()), limits, "cpu", "float32", "hf"))


def answer_to(driver: EngineDriver, sampling: SamplingParams, **fields: Any) -> Answer:
    request_id = driver.add([A, B], sampling, **fields)
    driver.run()
    return driver.answers[request_id]


# -- how a text ends


@pytest.mark.parametrize(
    ("stop", "text", "num_tokens", "stop_reason"),
    [
        (("lo w",), "hel", 3, "lo w"),
        (("e",), "h", 1, "e"),
        (("orl",), "hello w", 4, "orl"),
        (("hello",), "", 3, "hello"),
        (("world", "lo"), "hel", 3, "lo"),
        (("o world!", "wor"), "hello ", 4, "wor"),
        (("!", "d!"), "hello worl", 5, "d!"),
        (("</s>", "lol"), "hello world!", 6, None),
    ],
)
def test_stop_strings(stop: tuple[str, ...], text: str, num_tokens: int, stop_reason: str | None) -> None:
    for stream in (True, False):
        answer = answer_to(scripted(saying(*HELLO, END)), SamplingParams(stop=stop, max_tokens=20), stream=stream)
        assert answer.texts == {0: text}
        assert answer.reasons == {0: ("stop", stop_reason)}
        assert answer.tokens == {0: [*HELLO, END][:num_tokens]}


def test_what_was_held_back_for_a_stop_string_comes_at_the_end() -> None:
    driver = scripted(saying(*HELLO))
    answer = answer_to(driver, SamplingParams(stop=("world?", "!?"), max_tokens=5))
    assert answer.texts == {0: "hello world!"}
    assert answer.reasons == {0: ("length", None)}


@pytest.mark.parametrize(
    ("min_tokens", "text", "num_tokens"),
    [(0, "hel", 3), (2, "hel", 3), (3, "hello world!hel", 8), (5, "hello world!hel", 8)],
)
def test_stop_string_counts_only_after_min_tokens(min_tokens: int, text: str, num_tokens: int) -> None:
    sampling = SamplingParams(stop=("lo",), min_tokens=min_tokens, max_tokens=20)
    answer = answer_to(scripted(saying(*HELLO)), sampling)
    assert answer.texts == {0: text}
    assert len(answer.tokens[0]) == num_tokens


def test_end_token_ends_and_has_no_text() -> None:
    answer = answer_to(scripted(saying(HE, END, LL)), SamplingParams(max_tokens=9))
    assert (answer.texts, answer.reasons, answer.tokens) == ({0: "he"}, {0: ("stop", None)}, {0: [HE, END]})


def test_ignored_end_token_is_a_token_like_any_other() -> None:
    answer = answer_to(scripted(saying(HE, END, LL)), SamplingParams(max_tokens=4, ignore_eos=True))
    assert answer.texts == {0: "hellhe"}
    assert answer.reasons == {0: ("length", None)}
    assert answer.tokens == {0: [HE, END, LL, HE]}


@pytest.mark.parametrize("n", [1, 3])
def test_one_token(n: int) -> None:
    answer = answer_to(scripted(saying(HE)), SamplingParams(max_tokens=1), n=n)
    assert answer.texts == dict.fromkeys(range(n), "he")
    assert answer.reasons == dict.fromkeys(range(n), ("length", None))
    assert answer.num_deltas == n


# -- the time a request may take


class Clock:
    """In place of time.monotonic: each step of the runner takes a second."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 100.0
        monkeypatch.setattr(request_history, "time", self)

    def monotonic(self) -> float:
        return self.now

    def tick(self, sequence: Sequence, choice: int) -> int:
        self.now += 1.0
        return HE


@pytest.mark.parametrize(("max_time", "num_tokens"), [(0.5, 1), (1.0, 1), (2.5, 3), (3.0, 3), (None, 9)])
def test_choice_ends_with_the_token_that_its_time_runs_out_at(
    monkeypatch: pytest.MonkeyPatch, max_time: float | None, num_tokens: int
) -> None:
    answer = answer_to(scripted(Clock(monkeypatch).tick), SamplingParams(max_time=max_time, max_tokens=9))
    assert answer.tokens == {0: [HE] * num_tokens}
    assert answer.texts == {0: "he" * num_tokens}
    assert answer.reasons == {0: ("length", None)}


def test_time_runs_from_the_first_step_for_all_choices(monkeypatch: pytest.MonkeyPatch) -> None:
    driver = scripted(Clock(monkeypatch).tick, max_num_seqs=2)
    first = driver.add([A], SamplingParams(max_tokens=5))
    hasty = driver.add([A], SamplingParams(max_time=3.5, max_tokens=5), n=2)
    driver.run()
    assert len(driver.tokens(first)) == 5
    assert [len(driver.tokens(hasty, index)) for index in (0, 1)] == [2, 2]


def test_stop_goes_before_time(monkeypatch: pytest.MonkeyPatch) -> None:
    driver = scripted(Clock(monkeypatch).tick)
    answer = answer_to(driver, SamplingParams(max_time=1.0, stop=("e",), max_tokens=5))
    assert answer.reasons == {0: ("stop", "e")}


# -- what is sent


@pytest.mark.parametrize("stream", [True, False])
def test_scores_come_with_their_tokens(stream: bool) -> None:
    driver = scripted(saying(*HELLO, END))
    fields: dict[str, Any] = {"stop": ("world?",), "max_tokens": 9}
    answer = answer_to(driver, SamplingParams(output_scores=True, **fields), n=2, stream=stream)
    assert answer.scores == {index: [-float(token) for token in tokens] for index, tokens in answer.tokens.items()}
    assert answer.tokens[1] == [*HELLO, END]
    assert answer_to(driver, SamplingParams(**fields), stream=stream).scores == {}


def test_scores_are_sent_though_the_text_is_held_back() -> None:
    driver = scripted(saying(*HELLO))
    request = TextGenerationReq(request_id="r0")
    settled = settle_sampling(SamplingParams(stop=("hello world?",), output_scores=True), SamplingParams(), room=50)
    driver.engine.add(EncodedRequest(request, [A], settled))
    [delta] = driver.engine.step()
    assert delta == Delta("r0", 0, "", None, None, None, [-float(HE)], num_tokens=1)


def send(driver: EngineDriver, *, echo_text: str = "", tokens: tuple[int, ...] = (A, B), **fields: Any) -> Answer:
    request = TextGenerationReq(request_id=f"r{len(driver.answers)}", **fields)
    settled = settle_sampling(request.sampling, SamplingParams(), room=50)
    driver.answers[request.request_id] = answer = Answer()
    driver.engine.add(EncodedRequest(request, list(tokens), settled, echo_text, request.n or 1))
    return answer


@pytest.mark.parametrize("stream", [True, False])
def test_echo_is_in_front_of_each_choice(stream: bool) -> None:
    driver = scripted(saying(*HELLO, END))
    answer = send(driver, echo_text=" ab", n=2, stream=stream, sampling=SamplingParams(stop=("ab", "!")))
    driver.run()
    assert answer.texts == {0: " abhello world", 1: " abhello world"}


def test_echo_alone_is_sent_at_once() -> None:
    driver = scripted(saying(*HELLO))
    answer = send(driver, echo_text=" ab", sampling=SamplingParams(stop=("hello",)))
    driver.step()
    assert answer.texts == {0: " ab"}


def test_token_ids_only_where_asked_for() -> None:
    driver = scripted(saying(*HELLO, END))
    send(driver)
    deltas = [reply for _ in range(6) for reply in driver.step() if not isinstance(reply, Finished)]
    assert {delta.token_ids for delta in deltas} == {None}  # type: ignore[union-attr]


@pytest.mark.parametrize(("asked", "ids"), [(True, [A, B]), (False, None)])
def test_accepted_counts_the_prompt(asked: bool, ids: list[int] | None) -> None:
    request = TextGenerationReq(request_id="x", return_token_ids=asked)
    accepted = EncodedRequest(request, [A, B], Sampling(max_tokens=1), num_choices=3).accepted()
    assert (accepted.prompt_tokens, accepted.prompt_token_ids, accepted.num_choices) == (2, ids, 3)


@pytest.mark.parametrize("n", [1, 3])
def test_not_streamed_is_one_delta_for_each_choice_with_the_same_content(n: int) -> None:
    sampling = SamplingParams(max_tokens=17, stop=("ab",), ignore_eos=True)
    streamed = answer_to(scripted(wandering), sampling, n=n)
    at_once = answer_to(scripted(wandering), sampling, n=n, stream=False)
    assert (at_once.texts, at_once.tokens, at_once.reasons) == (streamed.texts, streamed.tokens, streamed.reasons)
    assert at_once.num_deltas == n < streamed.num_deltas


def test_usage_counts_every_choice_and_what_was_cached() -> None:
    driver = scripted(lambda sequence, choice: END if sequence.num_generated == 2 + choice else HE)
    prompt = [A] * 11
    first = driver.add(prompt, SamplingParams(), n=2)
    driver.run()
    again = driver.add(prompt, SamplingParams())
    driver.run()
    ends = [driver.answers[request_id].end for request_id in (first, again)]
    assert all(isinstance(end, Finished) for end in ends)
    usages = [(end.usage.prompt_tokens, end.usage.completion_tokens, end.usage.cached_tokens) for end in ends]  # type: ignore[union-attr]
    assert usages[0][0::2] == (11, 0)
    assert usages[0][1] == sum(len(tokens) for tokens in driver.answers[first].tokens.values())
    assert usages[1] == (11, 3, 8)


@pytest.mark.rule("S11")
@pytest.mark.parametrize(("salts", "cached"), [(("", ""), 8), (("a", "a"), 8), (("a", "b"), 0), (("", "a"), 0)])
def test_prefixes_are_shared_only_under_the_same_salt(salts: tuple[str, str], cached: int) -> None:
    driver = scripted(saying(HE))
    for salt in salts:
        last = driver.add([A] * 11, SamplingParams(max_tokens=1), cache_salt=salt)
        driver.run()
    assert driver.answers[last].end.usage.cached_tokens == cached  # type: ignore[union-attr]


@pytest.mark.rule("S11")
def test_adapter_is_part_of_the_salt() -> None:
    driver = scripted(saying(HE))
    for adapter, salt in (("a", ""), (None, "a"), (None, "\0a"), ("a\0", "")):
        last = driver.add([A] * 11, SamplingParams(max_tokens=1), cache_salt=salt, model_adapter_uri=adapter)
        driver.run()
        assert driver.answers[last].end.usage.cached_tokens == 0  # type: ignore[union-attr]


def test_smaller_priority_goes_first() -> None:
    driver = scripted(saying(HE), max_num_seqs=1)
    ids = [driver.add([A], SamplingParams(max_tokens=2), priority=priority) for priority in (5, -1, 5, 0)]
    ended: list[str] = []
    while driver.engine.has_work:
        ended += [reply.request_id for reply in driver.step() if isinstance(reply, Finished)]
    assert ended == [ids[1], ids[3], ids[0], ids[2]]


def test_step_without_work_is_nothing() -> None:
    driver = scripted(saying(HE))
    assert driver.step() == []
    driver.engine.cancel(driver.add([A]))
    assert driver.step() == []


# -- one request's trouble


@pytest.mark.rule("S12")
@pytest.mark.parametrize("n", [1, 3])
@pytest.mark.parametrize("poisoned_prompt", [True, False], ids=["from the first token on", "in the middle"])
def test_text_that_cannot_be_decoded_fails_its_own_request_alone(n: int, poisoned_prompt: bool) -> None:
    others = [[A, B, HE], [B] * 9, [LL, LL]]
    sampling = SamplingParams(max_tokens=12, ignore_eos=True)
    alone = scripted(wandering)
    expected = [alone.add(prompt, sampling) for prompt in others]
    alone.run()

    def script(sequence: Sequence, choice: int) -> int:
        poisonous = sequence.request_id == "r1" and sequence.num_generated == 4 and choice == n - 1
        return BOMB if poisonous else wandering(sequence, choice)

    driver = scripted(script)
    ids = [driver.add(others[0], sampling)]
    poisoned = driver.add([A, BOMB if poisoned_prompt else B], sampling, n=n)
    ids += [driver.add(prompt, sampling) for prompt in others[1:]]
    driver.run()
    end = driver.answers[poisoned].end
    assert isinstance(end, Failed)
    assert (end.kind, end.code) == ("InternalServerError", "internal_error")
    assert "no text" not in end.message
    assert [driver.tokens(request_id) for request_id in ids] == [alone.tokens(request_id) for request_id in expected]


def test_request_that_fails_while_it_forks_leaves_nothing_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    driver = scripted(wandering)
    request_id = driver.add([A] * 5, SamplingParams(max_tokens=5), n=3)

    class SecondForkFails(open_request.Choice):
        def __init__(self, sequence: Sequence, encoded: EncodedRequest, vocabulary: Vocabulary) -> None:
            super().__init__(sequence, encoded, vocabulary)
            if sequence.index == 2:
                raise RuntimeError("no third choice")

    monkeypatch.setattr(open_request, "Choice", SecondForkFails)
    driver.run()
    assert isinstance(driver.answers[request_id].end, Failed)


# -- cancelling


@pytest.mark.parametrize("n", [1, 3])
@pytest.mark.parametrize(
    ("num_steps", "phase"), [(0, "waiting"), (1, "mid-prefill"), (3, "first token, forked"), (7, "decoding")]
)
def test_cancel_frees_everything_at_once(n: int, num_steps: int, phase: str) -> None:
    driver = scripted(wandering, budget=16)
    request_id = driver.add([A] * 40, SamplingParams(max_tokens=20, ignore_eos=True), n=n)
    for _ in range(num_steps):
        driver.step()
    assert bool(driver.answers[request_id].tokens) == (num_steps >= 3)
    assert driver.engine.cancel(request_id)
    load = driver.engine.load()
    assert (load.running, load.waiting, load.open_requests) == (0, 0, 0)
    assert load.free_blocks == load.total_blocks
    driver.engine.check_integrity()
    assert not driver.engine.cancel(request_id)
    assert driver.step() == []


def test_cancel_of_a_preempted_request() -> None:
    driver = scripted(wandering, num_blocks=8)
    sampling = SamplingParams(max_tokens=24, ignore_eos=True)
    ids = [driver.add([A] * 8, sampling) for _ in range(2)]
    while not driver.engine.load().preemptions:
        driver.step()
    assert driver.engine.load().waiting == 1
    assert driver.engine.cancel(ids[1])
    driver.run()
    assert len(driver.tokens(ids[0])) == 24


@pytest.mark.parametrize("from_the_front", [True, False])
def test_python_work_of_a_cancel_does_not_grow_with_what_waits(from_the_front: bool) -> None:
    def work(num_waiting: int) -> int:
        driver = scripted(saying(HE))
        ids = [driver.add([A], SamplingParams(max_tokens=2)) for _ in range(num_waiting)]
        with _EventCount() as count:
            for request_id in ids if from_the_front else reversed(ids):
                driver.engine.cancel(request_id)
        assert not driver.engine.has_work
        return count.lines + count.calls

    assert work(400) < 5 * work(100)


def test_cancel_of_an_unknown_request() -> None:
    assert not scripted(wandering).engine.cancel("never heard of")


def test_cancelled_choice_says_nothing_more_while_the_others_go_on() -> None:
    driver = scripted(wandering)
    sampling = SamplingParams(max_tokens=10, ignore_eos=True)
    kept, dropped = driver.add([A], sampling), driver.add([B], sampling, n=3)
    driver.step()
    driver.engine.cancel(dropped)
    said = driver.answers[dropped].num_deltas
    driver.run()
    assert driver.answers[dropped].num_deltas == said
    assert driver.answers[dropped].end is None
    assert isinstance(driver.answers[kept].end, Finished)


@pytest.mark.parametrize("seed", range(6))
def test_random_adds_and_cancels_lose_nothing(seed: int) -> None:
    rng = random.Random(seed)
    driver = scripted(wandering, num_blocks=24, budget=rng.choice([8, 16]))
    for _ in range(200):
        if rng.random() < 0.3:
            prompt = [rng.randrange(1, BOMB) for _ in range(rng.randrange(1, 40))]
            sampling = SamplingParams(max_tokens=rng.randrange(1, 40), stop=rng.choice([(), ("ab",)]), ignore_eos=True)
            driver.add(prompt, sampling, n=rng.choice([1, 1, 4]), priority=rng.choice([0, 1]))
        if rng.random() < 0.1 and driver.answers:
            driver.engine.cancel(rng.choice(list(driver.answers)))
        driver.step()
    driver.run()
    assert driver.engine.load().preemptions > 0
    assert sum(isinstance(answer.end, Finished) for answer in driver.answers.values()) > 20


# -- constant work


class _EventCount:
    """Lines of Python and calls into C, as the interpreter reports them."""

    def __init__(self) -> None:
        self.lines = self.calls = 0

    def __enter__(self) -> _EventCount:
        sys.setprofile(self._on_call)
        sys.settrace(self._on_line)
        return self

    def __exit__(self, *error: object) -> None:
        sys.settrace(None)
        sys.setprofile(None)

    def _on_call(self, frame: FrameType, event: str, arg: object) -> None:
        self.calls += 1

    def _on_line(self, frame: FrameType, event: str, arg: object) -> Any:
        self.lines += 1
        return self._on_line


def python_work(driver: EngineDriver, num_steps: int) -> tuple[int, int]:
    with _EventCount() as count:
        for _ in range(num_steps):
            driver.engine.step()
    return count.lines, count.calls


def test_python_work_of_a_step_does_not_grow_with_the_text() -> None:
    driver = scripted(saying(*HELLO), num_blocks=2200, max_model_len=4400)
    for _ in range(2):
        driver.add([A, B], SamplingParams(max_tokens=4300, stop=("hell no",), ignore_eos=True))
    period = 20  # after so many steps the blocks' borders and the words are at the same places again
    for _ in range(100):
        driver.engine.step()
    early = python_work(driver, period)
    for _ in range(4000):
        driver.engine.step()
    assert python_work(driver, period) == early
    assert min(early) > 20 * period


# -- the same seed


def choices_of(driver: EngineDriver, request_id: str) -> list[list[int]]:
    return [driver.tokens(request_id, index) for index in range(3)]


def test_seeded_choices_are_the_same_alone_and_under_load(tiny_models: dict[str, Path]) -> None:
    driver = EngineDriver.load(tiny_models["llama"], dtype="float32", max_num_batched_tokens=24)
    sampling = SamplingParams(seed=42, temperature=1.0, top_p=0.9, max_tokens=30, ignore_eos=True)
    prompt = [9, 8, 7] * 9
    alone = driver.add(prompt, sampling, n=3)
    driver.run()
    for number in range(8):
        driver.add([number] * (5 * number + 1), SamplingParams(seed=number, max_tokens=40, ignore_eos=True), n=2)
        driver.step()
    loaded = driver.add(prompt, sampling, n=3)
    driver.run()
    assert choices_of(driver, loaded) == choices_of(driver, alone)
    assert len({tuple(tokens) for tokens in choices_of(driver, alone)}) == 3
    other_seed = driver.add(prompt, SamplingParams(seed=43, temperature=1.0, max_tokens=30, ignore_eos=True))
    driver.run()
    assert driver.tokens(other_seed) != driver.tokens(alone)


@pytest.mark.parametrize("n", [1, 2])
def test_what_is_not_streamed_is_counted_now_and_then(n: int) -> None:
    sampling = SamplingParams(max_tokens=70, ignore_eos=True)
    streamed = answer_to(scripted(wandering), sampling, n=n)
    counted = answer_to(scripted(wandering), sampling, n=n, stream=False)
    assert (counted.num_counts, counted.num_deltas) == (2 * n, n), "after 32 tokens, after 64, and the whole"
    assert (counted.texts, counted.tokens, counted.reasons) == (streamed.texts, streamed.tokens, streamed.reasons)
