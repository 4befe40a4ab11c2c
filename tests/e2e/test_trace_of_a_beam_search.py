"""The trace of a streamed beam search that loses its blocks, from real processes."""

from __future__ import annotations

import json
import signal
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.service import Service, running

SHORT_OF_BLOCKS = ["--kv-cache-memory", "100kB", "--max-model-len", "224", "--max-num-batched-tokens", "32"]
BEAMS = {"use_beam_search": True, "beam_width": 4, "n": 2, "stream": True, "max_tokens": 90, "min_tokens": 90}
# Longer than one step reads, and short enough for the blocks to hold all three.
PROMPTS = [letter * 40 for letter in "xyz"]

Span = dict[str, Any]


@pytest.fixture(scope="module")
def spans(tiny_models: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> list[Span]:
    """Of one of three searches for which the blocks do not suffice, one that loses them while it decodes: in the order
    in which they begin, outer ones first."""
    folder = tmp_path_factory.mktemp("trace")
    model = ["--model-uri", str(tiny_models["llama"]), "--served-model-name", "tiny", "--dtype", "float32"]
    flags = ["--trace-file", str(folder / "lines"), "--trace-sample", "1"]
    with running(Service(folder, [*model, *SHORT_OF_BLOCKS], flags)) as service:
        with ThreadPoolExecutor() as pool:
            bodies = [{"prompt": prompt, **BEAMS} for prompt in PROMPTS]
            answers = pool.map(lambda body: service.http.post("/v1/completions", json=body), bodies)
            assert all("[DONE]" in answer.text for answer in answers)
        assert service.load()["preemptions"] > 0
        service.gateway.send_signal(signal.SIGTERM)  # type: ignore[union-attr]
        assert service.gateway.wait(30) == 0  # type: ignore[union-attr]
        service.start_gateway()
        service.wait_ready()
    found = [json.loads(line) for line in (folder / "lines").read_text().splitlines()]
    found.sort(key=lambda span: (span["start_ns"], -span["end_ns"]))
    trace_ids = [span["trace_id"] for span in found if span["parent_id"] is None]
    traces = [[span for span in found if span["trace_id"] == trace_id] for trace_id in trace_ids]
    return next(trace for trace in traces if _is_preempted_in_decode(trace))


def _is_preempted_in_decode(spans: list[Span]) -> bool:
    """Not before: what a prefill loses it reads again."""
    phases = [span["name"] for span in spans if span["name"] in ("decode", "preempted")]
    return phases[:2] == ["decode", "preempted"]


def named(spans: list[Span], name: str) -> list[Span]:
    return [span for span in spans if span["name"] == name]


def events(spans: list[Span], name: str) -> list[Span]:
    return [event for span in spans for event in span["events"] if event["name"] == name]


def test_each_span_lies_in_its_parent(spans: list[Span]) -> None:
    by_id = {span["span_id"]: span for span in spans}
    assert [span["name"] for span in spans[:4]] == [
        "POST /v1/completions",
        "text_completion tiny",
        "model server",
        "queue",
    ]
    for span in spans[1:]:
        parent = by_id[span["parent_id"]]
        assert parent["start_ns"] <= span["start_ns"] <= span["end_ns"] <= parent["end_ns"], span["name"]


def test_the_prompt_is_read_in_pieces(spans: list[Span]) -> None:
    [prefill] = named(spans, "prefill")
    pieces = [event["attributes"]["vfastml.tokens"] for event in prefill["events"] if event["name"] == "prefilled"]
    assert sum(pieces) == len(PROMPTS[0])
    assert max(pieces) <= 32


def test_beams_fork_and_lose_their_blocks(spans: list[Span]) -> None:
    preempted = named(spans, "preempted")
    [dispatched] = named(spans, "text_completion tiny")
    assert len(events(spans, "forked")) >= 3
    assert 0 < len(preempted) <= dispatched["attributes"]["vfastml.preemptions"]
    assert all(span["end_ns"] > span["start_ns"] for span in preempted)
    assert {span["attributes"]["vfastml.index"] for span in preempted} <= {0, 1, 2, 3}


def test_it_says_what_it_came_to(spans: list[Span]) -> None:
    [dispatched] = named(spans, "text_completion tiny")
    attributes = dispatched["attributes"]
    assert attributes["gen_ai.usage.input_tokens"] == len(PROMPTS[0])
    assert attributes["gen_ai.usage.output_tokens"] == 180
    assert attributes["gen_ai.response.finish_reasons"] == ["length", "length"]
    assert attributes["vfastml.beam_width"] == 4
    assert not any(prompt[:8] in json.dumps(spans) for prompt in PROMPTS)
