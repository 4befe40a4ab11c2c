"""Single requests under control, with real processes: two gateways with two keys, and one model server that computes
one text at a time."""

from __future__ import annotations

import concurrent.futures
import contextlib
import json
import re
import urllib.parse
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.e2e.service import Service, running, wait_until

LONG = {"max_tokens": 8000, "ignore_eos": True}
"""More than any test waits for."""
CHAT, COMPLETIONS = "/v1/chat/completions", "/v1/completions"
PATIENCE_S = 60.0
Stream = tuple[httpx.Response, Iterator[str]]
MARK = re.compile(r"(\w+);dur=([\d.]+)")


@dataclass(frozen=True, slots=True)
class Pair:
    """Two gateways of one model server. Requests go to `service`, with the first key."""

    service: Service
    other: Service

    def asked(self, which: str) -> httpx.Client:
        """The gateway that is asked to cancel."""
        return self.service.http if which == "own" else self.other.http


@pytest.fixture(scope="module")
def pair(builtin_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    keys = ["--api-key", "first", "--api-key", "second"]
    server = ["--max-num-seqs", "1", "--kv-cache-memory", "200MB"]
    service = Service(tmp_path_factory.mktemp("first"), server, keys)
    other_args = [*keys, "--model-server", f"tcp://127.0.0.1:{service.rpc_port}"]
    other = Service(tmp_path_factory.mktemp("second"), [], other_args)  # its own model server is never there
    for one in (service, other):
        one.http.headers["authorization"] = "Bearer first"
    try:
        with running(service):
            other.start_gateway()
            other.wait_ready()
            yield Pair(service, other)
    finally:
        other.stop()


@contextlib.contextmanager
def streaming(service: Service, path: str = COMPLETIONS, **fields: Any) -> Iterator[Stream]:
    """A long text under way, and its events from the second on; of the first, `id` is left in the response."""
    prompt = {"messages": "Tell me a story."} if path == CHAT else {"prompt": "Once"}
    headers = fields.pop("headers", {})
    with service.http.stream(
        "POST", path, json={**prompt, **LONG, "stream": True, **fields}, headers=headers
    ) as answer:
        events = (line.removeprefix("data: ") for line in answer.iter_lines() if line)
        answer.extensions["id"] = json.loads(next(events))["id"]
        yield answer, events


def run_and_wait(service: Service) -> tuple[int, int]:
    """How many, by one beat of the model server."""
    load = service.load()
    return load["running"], load["waiting"]


@pytest.fixture
def background() -> Iterator[concurrent.futures.ThreadPoolExecutor]:
    with concurrent.futures.ThreadPoolExecutor() as executor:
        yield executor


def cancel(client: httpx.Client, name: str, **headers: str) -> httpx.Response:
    return client.post(f"/v1/requests/{urllib.parse.quote(name, safe='')}/cancel", headers=headers)


def is_cancelled(service: Service, events: Iterator[str]) -> bool:
    """The stream ends with what says so, and nothing is left of it."""
    *_, last = events
    wait_until(service.all_free, PATIENCE_S, "every block is free and no request open")
    return bool(json.loads(last)["error"]["code"] == "request_cancelled")


@pytest.mark.parametrize("which", ["own", "other"])
@pytest.mark.parametrize("path", [CHAT, COMPLETIONS])
@pytest.mark.parametrize("by", ["response id", "own x-request-id", "given x-request-id"])
def test_a_running_stream_is_cancelled(pair: Pair, which: str, path: str, by: str) -> None:
    headers = {"x-request-id": "mine"} if by == "own x-request-id" else {}
    with streaming(pair.service, path, headers=headers) as (answer, events):
        wait_until(lambda: pair.service.load()["free_blocks"] < pair.service.load()["total_blocks"], PATIENCE_S, "runs")
        name = answer.extensions["id"] if by == "response id" else answer.headers["x-request-id"]
        assert cancel(pair.asked(which), name).json() == {"id": name, "cancelled": True}
        assert is_cancelled(pair.service, events)
    assert cancel(pair.asked(which), name).status_code == 404


@pytest.mark.parametrize("which", ["own", "other"])
def test_a_waiting_request_is_cancelled_and_the_running_one_goes_on(
    pair: Pair, which: str, background: concurrent.futures.ThreadPoolExecutor
) -> None:
    with streaming(pair.service) as (answer, events):
        body = {"messages": "x", **LONG}
        waiting = background.submit(pair.service.http.post, CHAT, json=body, headers={"x-request-id": "waits"})
        wait_until(lambda: run_and_wait(pair.service) == (1, 1), PATIENCE_S, "one waits, and it is not the first one")
        assert cancel(pair.asked(which), "waits").status_code == 200
        ended = waiting.result(PATIENCE_S)
        assert (ended.status_code, ended.json()["error"]["code"]) == (499, "request_cancelled")
        assert ended.headers["x-request-id"] == "waits"
        wait_until(lambda: pair.service.load()["waiting"] == 0, PATIENCE_S, "none waits")
        assert pair.service.load()["running"] == 1
        assert "text" in json.loads(next(events))["choices"][0]
        assert cancel(pair.asked(which), answer.extensions["id"]).status_code == 200
        assert is_cancelled(pair.service, events)


@pytest.mark.parametrize("which", ["own", "other"])
def test_all_prompts_of_a_request_are_cancelled(pair: Pair, which: str) -> None:
    with streaming(pair.service, prompt=["Once", "Twice", "Thrice"]) as (answer, events):
        wait_until(lambda: pair.service.load()["waiting"] == 2, PATIENCE_S, "the other two wait")
        assert cancel(pair.asked(which), answer.extensions["id"]).status_code == 200
        assert is_cancelled(pair.service, events)


def test_another_key_cancels_nothing(pair: Pair) -> None:
    second = {"authorization": "Bearer second"}
    with streaming(pair.service, headers={"x-request-id": "mine"}) as (answer, events):
        for client in (pair.service.http, pair.other.http):
            for name in ("mine", answer.extensions["id"], "nobodys"):
                refused = cancel(client, name, **second)
                assert (refused.status_code, refused.json()["error"]["type"]) == (404, "not_found_error")
        assert "text" in json.loads(next(events))["choices"][0]
        assert cancel(pair.other.http, "mine").status_code == 200
        assert is_cancelled(pair.service, events)


HOSTILE = ["..", "%00", "a\r\nb: c", "x" * 65, "x" * 30_000, "../../load", "日本", "' or 1=1", "*"]


@pytest.mark.rule("S10")
@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_name_is_a_name_that_nobody_has(pair: Pair, name: str) -> None:
    for client in (pair.service.http, pair.other.http):
        answer = cancel(client, name)
        assert (answer.status_code, answer.json()["error"]["type"]) == (404, "not_found_error")
        assert "b" not in answer.headers


@pytest.mark.parametrize("path", [CHAT, COMPLETIONS])
def test_a_deadline_ends_what_runs(pair: Pair, path: str) -> None:
    whole = pair.service.http.post(path, json={"messages": "x", "prompt": "x", **LONG, "deadline_s": 0.5})
    assert (whole.status_code, whole.json()["error"]["code"]) == (504, "deadline_exceeded")
    assert whole.headers["x-should-retry"] == "false"
    with streaming(pair.service, path, deadline_s=4) as (_, events):
        *_, last = events
        assert json.loads(last)["error"]["code"] == "deadline_exceeded"
    wait_until(pair.service.all_free, PATIENCE_S, "every block is free")


def test_a_deadline_ends_what_waits(pair: Pair) -> None:
    with streaming(pair.service) as (answer, events):
        late = pair.service.http.post(CHAT, json={"messages": "x", "max_tokens": 1, "deadline_s": 0.3})
        assert (late.status_code, late.json()["error"]["code"]) == (504, "deadline_exceeded")
        assert pair.service.load()["running"] == 1
        assert cancel(pair.service.http, answer.extensions["id"]).status_code == 200
        assert is_cancelled(pair.service, events)


def check_timings(timings: dict[str, Any], usage: dict[str, Any]) -> None:
    assert 0 <= timings["queued_ms"] <= timings["first_token_ms"] <= timings["total_ms"]
    parts = timings["queued_ms"] + timings["prompt_ms"] + timings["predicted_ms"]
    assert parts == pytest.approx(timings["total_ms"], abs=0.01)
    assert timings["predicted_n"] == usage["completion_tokens"]
    assert timings["cache_n"] == usage["prompt_tokens_details"]["cached_tokens"]
    assert timings["prompt_n"] + timings["cache_n"] == usage["prompt_tokens"]
    later_s = timings["predicted_ms"] / 1000
    assert timings["predicted_per_second"] * later_s == pytest.approx(timings["predicted_n"] - 1, rel=0.01)


@pytest.mark.parametrize("path", [CHAT, COMPLETIONS])
def test_timings_add_up(pair: Pair, path: str) -> None:
    body = {"messages": "Count to ten.", "prompt": "One, two,", "max_tokens": 12, "ignore_eos": True}
    answer = pair.service.http.post(path, json={**body, "return_timings": True})
    timings, usage = answer.json()["timings"], answer.json()["usage"]
    check_timings(timings, usage)
    marks = {name: float(value) for name, value in MARK.findall(answer.headers["server-timing"])}
    assert marks == {
        "queue": timings["queued_ms"],
        "first_token": timings["first_token_ms"],
        "total": timings["total_ms"],
    }
    stream = {"stream": True, "return_timings": True, "stream_options": {"include_usage": True}}
    *_, last, done, _ = pair.service.http.post(path, json={**body, **stream}).text.split("\n\n")
    assert done == "data: [DONE]"
    chunk = json.loads(last.removeprefix("data: "))
    assert chunk["choices"] == []
    check_timings(chunk["timings"], chunk["usage"])


def test_waiting_is_told_from_computing(pair: Pair, background: concurrent.futures.ThreadPoolExecutor) -> None:
    with streaming(pair.service) as (answer, _):
        body = {"prompt": "One", "max_tokens": 2, "ignore_eos": True, "return_timings": True}
        waiting = background.submit(pair.service.http.post, COMPLETIONS, json=body)
        wait_until(lambda: run_and_wait(pair.service) == (1, 1), PATIENCE_S, "one waits, and it is not the first one")
        assert cancel(pair.service.http, answer.extensions["id"]).status_code == 200
    ended = waiting.result(PATIENCE_S).json()
    check_timings(ended["timings"], ended["usage"])
    assert ended["timings"]["queued_ms"] > 0


def test_a_prompt_that_is_only_read_has_no_first_token(pair: Pair) -> None:
    body = {"prompt": "One", "max_tokens": 0, "echo": True, "logprobs": 1, "return_timings": True}
    answer = pair.service.http.post(COMPLETIONS, json=body)
    timings = answer.json()["timings"]
    assert (timings["first_token_ms"], timings["predicted_n"], timings["predicted_ms"]) == (None, 0, 0.0)
    assert timings["queued_ms"] + timings["prompt_ms"] == pytest.approx(timings["total_ms"], abs=0.01)
    assert [name for name, _ in MARK.findall(answer.headers["server-timing"])] == ["queue", "total"]


def test_the_openai_client_takes_it_all(pair: Pair) -> None:
    client = pair.service.openai(default_headers={"authorization": "Bearer first"}, max_retries=0)
    with client.chat.completions.create(
        model="smollm2-135m-instruct",
        messages=[{"role": "user", "content": "Count."}],
        max_tokens=3,
        stream=True,
        extra_body={"return_timings": True, "deadline_s": 60},
        extra_headers={"x-request-id": "from-openai"},
    ) as stream:
        assert stream.response.headers["x-request-id"] == "from-openai"
        chunks = list(stream)
    assert [chunk.choices for chunk in chunks][-1] == []
    assert chunks[-1].model_extra is not None
    assert chunks[-1].model_extra["timings"]["predicted_n"] == 3
