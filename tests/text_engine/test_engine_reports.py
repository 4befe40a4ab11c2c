"""What the engine tells of itself and of each request: tokens, cache, preemptions, marks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.text_engine.beam_driver import BLOCK_BYTES
from vfastml.engine.dispatch_replies import Delta, Finished, Mark, Timings
from vfastml.engine.dispatch_requests import BeamSearch, SamplingParams, TextGenerationReq
from vfastml.engine.merged_deltas import merged_by_choice
from vfastml.text_engine.engine_config import EngineConfig
from vfastml.text_engine.engine_loader import LoadedEngine, load_engine
from vfastml.text_engine.forward_defaults import ForwardDefaults
from vfastml.text_engine.request_encoder import RequestEncoder

LONG = SamplingParams(max_tokens=40, temperature=0.0, ignore_eos=True)


class Reports:
    """An engine that keeps all that it says."""

    def __init__(self, folder: Path, *, num_blocks: int = 64, budget: int = 32) -> None:
        config = EngineConfig(
            device="cpu",
            dtype="float32",
            measure_limits="never",
            kv_cache_memory=num_blocks * BLOCK_BYTES,
            max_model_len=96,
            max_num_batched_tokens=budget,
        )
        self.loaded: LoadedEngine = load_engine(folder, config, lambda phase: None)
        self.encoder = RequestEncoder(
            self.loaded.encoder, self.loaded.limits, ForwardDefaults(SamplingParams(), 1), self.loaded.compiler
        )
        self.deltas: dict[str, list[Delta]] = {}
        self.ends: dict[str, Finished] = {}

    def add(self, sampling: SamplingParams = LONG, **fields: Any) -> str:
        request_id = f"r{len(self.deltas)}"
        self.deltas[request_id] = []
        request = TextGenerationReq(request_id=request_id, sampling=sampling, **fields)
        self.loaded.engine.add(self.encoder.encode(request))
        return request_id

    def step(self) -> None:
        for reply in self.loaded.engine.step():
            if isinstance(reply, Delta):
                self.deltas[reply.request_id].append(reply)
            else:
                assert isinstance(reply, Finished)
                self.ends[reply.request_id] = reply

    def run(self) -> None:
        while self.loaded.engine.has_work:
            self.step()


@pytest.fixture(scope="module")
def reports(tiny_models: dict[str, Path]) -> Reports:
    return Reports(tiny_models["llama"])


@pytest.fixture
def short_of_blocks(tiny_models: dict[str, Path]) -> Reports:
    return Reports(tiny_models["llama"], num_blocks=8, budget=16)


def requests() -> st.SearchStrategy[tuple[SamplingParams, dict[str, Any]]]:
    """Some of each kind: those that hold text back, that end early, that answer less than they generate."""
    sampling = st.builds(
        SamplingParams,
        max_tokens=st.integers(1, 20),
        temperature=st.sampled_from([0.0, 1.5]),
        seed=st.integers(0, 99),
        stop=st.sampled_from([(), ("e",), ("zzzzzzzzzz",), ("a", "\n")]),
        stop_token_ids=st.sampled_from([(), (3, 5, 70)]),
        output_scores=st.booleans(),
    )
    whole = st.fixed_dictionaries({"stream": st.just(False), "n": st.integers(1, 3)})
    fields = st.one_of(
        st.fixed_dictionaries({"stream": st.booleans(), "n": st.integers(1, 3)}),
        whole.map(lambda fields: {**fields, "best_of": 4}),
        st.builds(
            lambda stream, n: {"stream": stream, "n": n, "beams": BeamSearch(4)}, st.booleans(), st.integers(1, 3)
        ),
    )
    return st.tuples(sampling, st.tuples(fields, st.booleans()).map(lambda pair: {**pair[0], "is_traced": pair[1]}))


@given(asked=st.lists(requests(), min_size=1, max_size=4))
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_tokens_of_deltas_are_those_of_the_usage(
    reports: Reports, asked: list[tuple[SamplingParams, dict[str, Any]]]
) -> None:
    generated_before = reports.loaded.engine.load().generated_tokens
    ids = [reports.add(sampling, prompt="abc", **fields) for sampling, fields in asked]
    reports.run()
    for request_id, (_, fields) in zip(ids, asked, strict=True):
        deltas, end = reports.deltas[request_id], reports.ends[request_id]
        assert sum(delta.num_tokens for delta in deltas) == end.usage.completion_tokens > 0
        assert sum(delta.num_tokens for delta in merged_by_choice(deltas)) == end.usage.completion_tokens
        assert bool(end.marks) == fields["is_traced"]
    if not any("beams" in fields for _, fields in asked):
        completed = sum(reports.ends[request_id].usage.completion_tokens for request_id in ids)
        assert reports.loaded.engine.load().generated_tokens - generated_before == completed


def test_each_token_of_a_stream_is_told_with_the_first_text_after_it(reports: Reports) -> None:
    request_id = reports.add(prompt="abc", return_token_ids=True)
    reports.run()
    assert [delta.num_tokens for delta in reports.deltas[request_id]] == [1] * 40
    held = reports.add(SamplingParams(max_tokens=9, temperature=0.0, ignore_eos=True), prompt="abc", stream=False)
    reports.run()
    assert [delta.num_tokens for delta in reports.deltas[held]] == [9]


def test_text_without_tokens_counts_none(reports: Reports) -> None:
    request_id = reports.add(SamplingParams(max_tokens=0, prompt_logprobs=1), prompt="abc")
    before = reports.loaded.engine.load().generated_tokens
    reports.run()
    assert [delta.num_tokens for delta in reports.deltas[request_id]] == [0]
    assert reports.loaded.engine.load().generated_tokens == before


def test_load_counts_prompts_and_what_the_cache_had_of_them(reports: Reports) -> None:
    prompt = [7, *range(50, 89)]
    for hits in (0, 32):  # two blocks of 16
        before = reports.loaded.engine.load()
        reports.add(prompt_token_ids=prompt)
        reports.run()
        after = reports.loaded.engine.load()
        assert after.prefix_query_tokens - before.prefix_query_tokens == 40
        assert after.prefix_hit_tokens - before.prefix_hit_tokens == hits
        assert after.prompt_tokens - before.prompt_tokens == 40 - hits
        assert after.generated_tokens - before.generated_tokens == 40
    before = reports.loaded.engine.load()
    reports.add(SamplingParams(max_tokens=1, prompt_logprobs=1), prompt_token_ids=prompt)
    reports.run()
    assert reports.loaded.engine.load().prefix_query_tokens == before.prefix_query_tokens


def test_preemptions_of_a_request_are_counted_and_marked(short_of_blocks: Reports) -> None:
    ids = [short_of_blocks.add(prompt_token_ids=[first] * 20, is_traced=True) for first in (10, 20, 30)]
    short_of_blocks.run()
    numbers = [short_of_blocks.ends[request_id].timings.num_preemptions for request_id in ids]
    assert numbers[0] == 0
    assert sum(numbers) == short_of_blocks.loaded.engine.load().preemptions > 0
    for request_id, number in zip(ids, numbers, strict=True):
        names = [mark.name for mark in short_of_blocks.ends[request_id].marks]
        assert names.count("preempted") == names.count("resumed") == number
    assert short_of_blocks.loaded.engine.load().prompt_tokens > 3 * 20


def test_marks_tell_a_request_from_its_place_in_the_batch_to_its_end(reports: Reports) -> None:
    request_id = reports.add(prompt_token_ids=[9, *range(100, 149)], is_traced=True, n=2)
    reports.run()
    marks = reports.ends[request_id].marks
    assert [(mark.name, mark.index, mark.num_tokens) for mark in marks] == [
        ("scheduled", 0, 0),
        ("prefilled", 0, 32),
        ("prefilled", 0, 18),
        ("forked", 1, 0),
        ("first_token", 0, 0),
        ("finished", 0, 80),
    ]
    times = [mark.at_s for mark in marks]
    assert times == sorted(times)
    timings = reports.ends[request_id].timings
    assert (times[0], times[-1]) == pytest.approx((timings.queued_s, timings.total_s), abs=0.05)


def test_marks_of_a_search_tell_where_beams_split_off_and_end(reports: Reports) -> None:
    request_id = reports.add(prompt="abc", is_traced=True, beams=BeamSearch(4))
    reports.run()
    marks = reports.ends[request_id].marks
    names = [mark.name for mark in marks]
    assert names[:3] == ["scheduled", "prefilled", "first_token"]
    assert names[-1] == "finished"
    assert names.count("forked") - names.count("dropped") == 3  # as many go on as the search is wide
    assert {mark.index for mark in marks} == {0, 1, 2, 3}


def test_marks_are_bounded_and_the_last_ones_kept(short_of_blocks: Reports) -> None:
    sampling = SamplingParams(max_tokens=60, temperature=0.0, ignore_eos=True)
    search = BeamSearch(8, groups=4, diversity_penalty=1.0, early_stopping="never")
    ids = [short_of_blocks.add(sampling, prompt_token_ids=[one] * 20, is_traced=True, beams=search) for one in (1, 2)]
    short_of_blocks.run()
    for request_id in ids:
        marks: list[Mark] = short_of_blocks.ends[request_id].marks
        timings: Timings = short_of_blocks.ends[request_id].timings
        assert timings.num_preemptions > 64
        assert len(marks) == 256
        assert (marks[0].name, marks[-1].name) == ("scheduled", "finished")
        times = [mark.at_s for mark in marks]
        assert times == sorted(times)
