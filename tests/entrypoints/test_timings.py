"""How long an answer took: the header, and the object in the body."""

from __future__ import annotations

import json
import re
from typing import Any

import httpx
import pytest

from tests.entrypoints.fake_dispatch_engine import FakeDispatchEngine, fail_with
from vfastml.engine.dispatch_replies import Accepted, Delta, Finished, Timings, Usage
from vfastml.engine.dispatch_task import DispatchTask
from vfastml.entrypoints.timings import TimedAnswer, slowest
from vfastml.errors import ServerLostError

TOOK = Timings(queued_s=0.25, first_token_s=0.75, total_s=2.75, num_preemptions=2)
USAGE = Usage(prompt_tokens=60, completion_tokens=9, cached_tokens=10)
BODY = {
    "queued_ms": 250.0,
    "first_token_ms": 750.0,
    "total_ms": 2750.0,
    "cache_n": 10,
    "prompt_n": 50,
    "prompt_ms": 500.0,
    "prompt_per_token_ms": 10.0,
    "prompt_per_second": 100.0,
    "predicted_n": 9,
    "predicted_ms": 2000.0,
    "predicted_per_token_ms": 250.0,
    "predicted_per_second": 4.0,
    "preemptions": 2,
}
PATHS: dict[str, dict[str, Any]] = {"/v1/chat/completions": {"messages": "x"}, "/v1/completions": {"prompt": "x"}}
METRIC = re.compile(r"[a-z_]+;dur=\d+(\.\d+)?")


async def take_long(task: DispatchTask) -> None:
    """Every later prompt takes half as long."""
    share = 2.0 ** -int(task.request_id.rpartition("-")[2], 16) if task.request_id.startswith("cmpl-") else 1.0
    timings = Timings(TOOK.queued_s * share, TOOK.first_token_s * share, TOOK.total_s * share, 2)
    task.add_accepted(Accepted(task.request_id, 60))
    task.add_delta(Delta(task.request_id, 0, "text", finish_reason="stop"))
    task.finish(Finished(task.request_id, USAGE, timings))


@pytest.fixture(autouse=True)
def slow(engine: FakeDispatchEngine) -> None:
    engine.script = take_long


def test_numbers_add_up() -> None:
    assert TimedAnswer(TOOK, USAGE, 1).body() == BODY
    body = TimedAnswer(TOOK, USAGE, 3).body()
    assert (body["predicted_n"], body["predicted_per_second"]) == (9, 3.0)
    assert TimedAnswer(TOOK, USAGE, 1).header() == "queue;dur=250.0, first_token;dur=750.0, total;dur=2750.0"


def test_what_there_is_none_of_has_no_rate() -> None:
    one = TimedAnswer(TOOK, Usage(60, 1, 60), 1).body()
    assert (one["prompt_n"], one["prompt_per_second"], one["prompt_per_token_ms"]) == (0, None, None)
    assert (one["predicted_n"], one["predicted_per_second"], one["predicted_per_token_ms"]) == (1, None, None)
    assert set(TimedAnswer(Timings(), Usage(), 1).body().values()) == {0, None}


def test_without_a_token_all_the_time_is_the_prompts() -> None:
    read = TimedAnswer(Timings(queued_s=1.0, total_s=3.0), Usage(prompt_tokens=50), 1)
    body = read.body()
    assert (body["first_token_ms"], body["prompt_ms"], body["predicted_ms"]) == (None, 2000.0, 0.0)
    assert read.header() == "queue;dur=1000.0, total;dur=3000.0"


def test_the_slowest_is_that_which_took_longest_in_all() -> None:
    answers = [TimedAnswer(Timings(total_s=seconds), Usage(), 1) for seconds in (1.0, 3.0, 2.0)]
    assert slowest(answers) is answers[1]


@pytest.mark.parametrize("path", PATHS)
async def test_whole_answers_have_the_header_always_and_the_object_on_request(
    client: httpx.AsyncClient, path: str
) -> None:
    for asked in ({}, {"return_timings": False}, {"return_timings": None}, {"return_timings": True}):
        answer = await client.post(path, json={**PATHS[path], **asked})
        assert answer.headers["server-timing"] == "queue;dur=250.0, first_token;dur=750.0, total;dur=2750.0"
        assert answer.json().get("timings") == (BODY if asked.get("return_timings") else None)


async def test_of_several_prompts_the_slowest_is_told(client: httpx.AsyncClient) -> None:
    answer = await client.post("/v1/completions", json={"prompt": ["a", "b", "c"], "return_timings": True})
    assert answer.json()["timings"] == BODY
    assert [metric.partition(";")[0] for metric in answer.headers["server-timing"].split(", ")] == [
        "queue",
        "first_token",
        "total",
    ]
    assert all(METRIC.fullmatch(metric) for metric in answer.headers["server-timing"].split(", "))


async def last_chunk(client: httpx.AsyncClient, path: str, **fields: Any) -> dict[str, Any]:
    answer = await client.post(path, json={**PATHS[path], "stream": True, **fields})
    assert "server-timing" not in answer.headers
    *chunks, done, _ = answer.text.split("\n\n")
    assert done == "data: [DONE]"
    parsed = [json.loads(chunk.removeprefix("data: ")) for chunk in chunks]
    assert all("timings" not in chunk for chunk in parsed[:-1])
    last: dict[str, Any] = parsed[-1]
    return last


@pytest.mark.parametrize("path", PATHS)
async def test_the_last_chunk_has_them_with_the_usage_or_without(client: httpx.AsyncClient, path: str) -> None:
    alone = await last_chunk(client, path, return_timings=True)
    assert (alone["choices"], alone["timings"], "usage" in alone) == ([], BODY, False)
    both = await last_chunk(client, path, return_timings=True, stream_options={"include_usage": True})
    assert (both["choices"], both["timings"], both["usage"]["completion_tokens"]) == ([], BODY, 9)
    usage = await last_chunk(client, path, stream_options={"include_usage": True})
    assert (usage["choices"], "timings" in usage) == ([], False)
    assert (await last_chunk(client, path))["choices"] != []


async def test_the_slowest_of_several_prompts_in_a_stream(client: httpx.AsyncClient) -> None:
    last = await last_chunk(client, "/v1/completions", prompt=["a", "b"], return_timings=True)
    assert last["timings"] == BODY


async def test_failures_have_none(client: httpx.AsyncClient, engine: FakeDispatchEngine) -> None:
    engine.script = fail_with(ServerLostError("The model server was lost."), after=["word"])
    whole = await client.post("/v1/completions", json={"prompt": "x", "return_timings": True})
    assert "server-timing" not in whole.headers
    stream = await client.post("/v1/completions", json={"prompt": "x", "return_timings": True, "stream": True})
    assert "timings" not in stream.text


async def test_a_deadline_reaches_the_engine(client: httpx.AsyncClient, engine: FakeDispatchEngine) -> None:
    for sent, received in ((0.5, 0.5), (3, 3.0), (86400, 86400.0), (None, None)):
        for path, body in PATHS.items():
            assert (await client.post(path, json={**body, "deadline_s": sent})).status_code == 200
            assert engine.requests[-1].deadline_s == received  # type: ignore[union-attr]


@pytest.mark.parametrize(
    "field", [{"deadline_s": bad} for bad in (0, -1, 86400.1, 1e300, "5", True, [])] + [{"return_timings": 1}]
)
async def test_other_values_are_refused_by_name(client: httpx.AsyncClient, field: dict[str, Any]) -> None:
    for path, body in PATHS.items():
        answer = await client.post(path, json={**body, **field})
        assert (answer.status_code, answer.json()["error"]["param"]) == (400, *field)
