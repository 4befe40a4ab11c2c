"""One trace a request, as a collector gets it from a real gateway."""

from __future__ import annotations

import asyncio
import json
import time
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.engine.fake_server import FakeServer, silent
from tests.entrypoints.running_gateway import PATIENCE_S, Running
from tests.entrypoints.tracing.collector import Collector, Seen, collecting
from tests.entrypoints.tracing.conftest import KEY, StartGateway
from tests.entrypoints.tracing.marking_server import MARKS, TIMINGS, break_down

BEAMS = {"use_beam_search": True, "beam_width": 2, "n": 2, "stream": True, "max_tokens": 3}
HEADERS = {"authorization": f"Bearer {KEY}", "x-request-id": "mine"}
CANARIES = ["prompt-canary", "answer-canary", KEY, "query-canary", "header-canary", "model-canary", "state-canary"]


async def ask(
    gateway: Running, path: str = "/v1/completions?q=query-canary", body: Any = None, **headers: str
) -> httpx.Response:
    async with httpx.AsyncClient(base_url=gateway.url, timeout=PATIENCE_S) as client:
        body = {"model": "m", "prompt": "prompt-canary", **BEAMS} if body is None else body
        return await client.post(path, json=body, headers={**HEADERS, "x-other": "header-canary", **headers})


async def ended(gateway: Running) -> None:
    """With all spans sent. The model server of the test goes on meanwhile."""
    gateway.signal()
    assert await asyncio.to_thread(gateway.exit_code) == 0


async def traced(start_gateway: StartGateway, collector: Collector, **headers: str) -> httpx.Response:
    gateway = start_gateway("--trace-endpoint", collector.url, "--trace-sample", "1")
    answer = await ask(gateway, **headers)
    await ended(gateway)
    return answer


def is_within(inner: Seen, outer: Seen) -> bool:
    return outer.begin_ns <= inner.begin_ns <= inner.end_ns <= outer.end_ns


async def test_one_trace_from_http_to_the_engine(start_gateway: StartGateway, collector: Collector) -> None:
    began_ns = time.time_ns()
    answer = await traced(start_gateway, collector)
    assert answer.status_code == 200
    assert "[DONE]" in answer.text
    http = collector.named("POST /v1/completions")
    [dispatched] = collector.below(http)
    [whole] = collector.below(dispatched)
    assert (dispatched.name, whole.name) == ("text_completion m", "model server")
    assert [span.name for span in collector.below(whole)] == ["queue", "prefill", "decode", "preempted"]
    assert len({span.trace_id for span in collector.spans}) == 1
    assert (http.kind, dispatched.kind) == ("server", "client")
    assert http.parent_id == ""
    assert began_ns < http.begin_ns < http.end_ns < time.time_ns()
    assert is_within(dispatched, http)
    assert is_within(whole, dispatched)
    assert all(is_within(part, whole) for part in collector.below(whole))
    assert not any(span.is_error for span in collector.spans)


async def test_durations_are_those_that_the_server_measured(start_gateway: StartGateway, collector: Collector) -> None:
    await traced(start_gateway, collector)
    lasted = {span.name: span.seconds for span in collector.spans}
    assert lasted["model server"] == pytest.approx(TIMINGS.total_s)
    assert lasted["queue"] == pytest.approx(TIMINGS.queued_s)
    assert lasted["prefill"] == pytest.approx(TIMINGS.first_token_s - TIMINGS.queued_s)
    assert lasted["decode"] == pytest.approx(TIMINGS.total_s - TIMINGS.first_token_s)
    assert lasted["preempted"] == pytest.approx(0.1)
    assert collector.named("preempted").attributes == {"vfastml.index": 1}
    assert collector.named("queue").end_ns == collector.named("prefill").begin_ns
    assert collector.named("prefill").end_ns == collector.named("decode").begin_ns
    assert collector.named("model server").end_ns == collector.named("text_completion m").end_ns


async def test_marks_are_events_at_their_time(start_gateway: StartGateway, collector: Collector) -> None:
    await traced(start_gateway, collector)
    begin_ns = collector.named("model server").begin_ns
    told = [
        (phase, name, round((at_ns - begin_ns) / 1e9, 3), attributes["vfastml.index"], attributes["vfastml.tokens"])
        for phase in ("queue", "prefill", "decode")
        for name, at_ns, attributes in collector.named(phase).events
    ]
    phases = ["prefill", "prefill", "prefill", "decode", "decode"]
    marks = [mark for mark in MARKS if mark.name not in ("preempted", "resumed")]
    assert told == [
        (phase, mark.name, mark.at_s, mark.index, mark.num_tokens) for phase, mark in zip(phases, marks, strict=True)
    ]


async def test_attributes(start_gateway: StartGateway, collector: Collector, server: FakeServer) -> None:
    await traced(start_gateway, collector)
    http = collector.named("POST /v1/completions").attributes
    assert http == {
        "http.request.method": "POST",
        "http.route": "/v1/completions",
        "http.response.status_code": 200,
        "url.scheme": "http",
        "network.protocol.version": "1.1",
        "vfastml.request_id": "mine",
    }
    [request] = server.requests
    attributes = collector.named("text_completion m").attributes
    assert attributes.pop("gen_ai.response.id") == request.request_id
    assert attributes.pop("vfastml.key").startswith("key-")
    assert attributes == {
        "vfastml.request_id": "mine",
        "gen_ai.operation.name": "text_completion",
        "gen_ai.provider.name": "vfastml",
        "gen_ai.request.model": "m",
        "gen_ai.response.model": "m",
        "gen_ai.request.stream": True,
        "gen_ai.request.max_tokens": 3,
        "gen_ai.request.choice.count": 2,
        "vfastml.beam_width": 2,
        "gen_ai.usage.input_tokens": 40,
        "gen_ai.usage.output_tokens": 3,
        "gen_ai.usage.cache_read.input_tokens": 16,
        "gen_ai.usage.reasoning.output_tokens": 1,
        "gen_ai.response.finish_reasons": ["stop", "stop"],
        "gen_ai.response.time_to_first_chunk": TIMINGS.first_token_s,
        "vfastml.preemptions": 1,
        "server.address": "127.0.0.1",
        "server.port": server.port,
    }
    assert collector.resources[0]["service.name"] == "vfastml"


@pytest.mark.rule("S10")
async def test_no_text_of_anybodys(start_gateway: StartGateway, collector: Collector) -> None:
    gateway = start_gateway("--trace-endpoint", collector.url, "--trace-sample", "1")
    state = {"tracestate": "vendor=state-canary", "traceparent": f"00-{'ab' * 16}-{'cd' * 8}-01"}
    assert (await ask(gateway, **state)).status_code == 200
    chat = {"model": "m", "messages": [{"role": "user", "content": "prompt-canary"}], "user": "prompt-canary"}
    assert (await ask(gateway, "/v1/chat/completions?q=query-canary", chat)).status_code == 200
    assert (await ask(gateway, body={"model": "model-canary", "prompt": "prompt-canary"})).status_code == 404
    assert (await ask(gateway, "/v1/prompt-canary/query-canary")).status_code == 404
    assert (await ask(gateway, authorization="Bearer header-canary")).status_code == 401
    assert (await ask(gateway, body=["prompt-canary"])).status_code == 400
    await ended(gateway)
    assert len([span for span in collector.spans if span.kind == "server"]) == 6
    for span in collector.spans:
        assert [canary for canary in CANARIES if canary in span.text] == [], span.name


async def test_a_clients_trace_is_gone_on_with(start_gateway: StartGateway, collector: Collector) -> None:
    gateway = start_gateway("--trace-endpoint", collector.url, "--trace-sample", "0")
    await ask(gateway, traceparent=f"00-{'ab' * 16}-{'cd' * 8}-01")
    await ask(gateway, traceparent=f"00-{'12' * 16}-{'cd' * 8}-00")
    await ask(gateway)
    await ended(gateway)
    assert {span.trace_id for span in collector.spans} == {"ab" * 16}
    assert collector.named("POST /v1/completions").parent_id == "cd" * 8


async def test_nobody_has_traces_made_without_a_key(start_gateway: StartGateway, collector: Collector) -> None:
    gateway = start_gateway("--trace-endpoint", collector.url, "--trace-sample", "0")
    for key, trace_id in (("wrong", "ab" * 16), (KEY, "12" * 16)):
        await ask(gateway, traceparent=f"00-{trace_id}-{'cd' * 8}-01", authorization=f"Bearer {key}")
    await ended(gateway)
    assert {span.trace_id for span in collector.spans} == {"12" * 16}


async def test_refusals_are_seen(start_gateway: StartGateway, collector: Collector) -> None:
    await traced(start_gateway, collector, authorization="Bearer wrong")
    [span] = collector.spans
    assert span.attributes["http.response.status_code"] == 401
    assert not span.is_error  # by the conventions a 4xx is no error of a server's


async def test_a_failed_request(start_gateway: StartGateway, collector: Collector, server: FakeServer) -> None:
    server.answer = break_down
    await traced(start_gateway, collector)
    dispatched = collector.named("text_completion m")
    assert dispatched.is_error
    assert dispatched.attributes["error.type"] == "InternalServerError"
    assert "words of the error" not in dispatched.text
    assert collector.below(dispatched) == []


async def test_a_client_that_goes_away(start_gateway: StartGateway, collector: Collector, server: FakeServer) -> None:
    server.answer = silent
    gateway = start_gateway("--trace-endpoint", collector.url, "--trace-sample", "1")
    asking = asyncio.create_task(ask(gateway))
    while not server.requests:
        await asyncio.sleep(0.01)
    asking.cancel()
    while not server.cancelled:
        await asyncio.sleep(0.01)
    await ended(gateway)
    dispatched = collector.named("text_completion m")
    assert dispatched.attributes["error.type"] == "RequestCancelledError"
    http = collector.named("POST /v1/completions")
    assert (http.attributes["error.type"], http.is_error) == ("client_disconnected", False)


async def test_probes_are_not_traced(start_gateway: StartGateway, collector: Collector) -> None:
    gateway = start_gateway("--trace-endpoint", collector.url, "--trace-sample", "1")
    async with httpx.AsyncClient(base_url=gateway.url) as client:
        for path in ("/livez", "/readyz", "/health", "/startupz"):
            await client.get(path, headers={"traceparent": f"00-{'ab' * 16}-{'cd' * 8}-01"})
    await ended(gateway)
    assert collector.spans == []


async def test_headers_for_the_collector_come_from_its_variable(
    start_gateway: StartGateway, collector: Collector, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_HEADERS", "x-collector-key=secret")
    monkeypatch.setenv("OTEL_SERVICE_NAME", "mine")
    await traced(start_gateway, collector)
    assert {request["x-collector-key"] for request in collector.requests} == {"secret"}
    assert collector.resources[0]["service.name"] == "mine"


async def test_all_workers_have_traces(start_gateway: StartGateway, collector: Collector, tmp_path: Path) -> None:
    file = tmp_path / "trace.jsonl"
    flags = ["--trace-endpoint", collector.url, "--trace-file", str(file), "--trace-sample", "1", "--workers", "2"]
    gateway = start_gateway(*flags)
    instances: set[Any] = set()
    while len(instances) < 2:  # until each has had one: the kernel chooses
        assert (await ask(gateway)).status_code == 200
        await asyncio.sleep(0.05)
        instances = {resource["service.instance.id"] for resource in collector.resources}
    await ended(gateway)
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    assert {line["span_id"] for line in lines} == {span.span_id for span in collector.spans}


async def test_a_file_has_the_same_spans(start_gateway: StartGateway, collector: Collector, tmp_path: Path) -> None:
    file = tmp_path / "trace.jsonl"
    gateway = start_gateway("--trace-endpoint", collector.url, "--trace-file", str(file), "--trace-sample", "1")
    await ask(gateway)
    await ended(gateway)
    assert file.stat().st_mode & 0o777 == 0o600
    lines = {line["span_id"]: line for line in map(json.loads, file.read_text().splitlines())}
    for span in collector.spans:
        line = lines.pop(span.span_id)
        assert (line["name"], line["trace_id"], line["parent_id"] or "") == (span.name, span.trace_id, span.parent_id)
        assert (line["start_ns"], line["end_ns"], line["attributes"]) == (span.begin_ns, span.end_ns, span.attributes)
        assert [(event["name"], event["at_ns"], event["attributes"]) for event in line["events"]] == span.events
    assert lines == {}


@pytest.mark.parametrize("status", [None, 400, 503])
async def test_a_collector_that_does_not_take_them_is_nobodys_trouble(
    start_gateway: StartGateway, status: int | None
) -> None:
    """`status` None: nobody listens there. Each request has its answer, the end is bounded, and one line tells."""
    with collecting(status or 200) as collector:
        pass_on = collector.url
        if status is None:
            pass_on = "http://127.0.0.1:9"
        gateway = start_gateway("--trace-endpoint", pass_on, "--trace-sample", "1")
        for answer in await asyncio.gather(*(ask(gateway) for _ in range(20))):
            assert answer.status_code == 200
        await ended(gateway)
    lines = gateway.stderr().splitlines()
    complaints = [line for line in lines if "spans of traces are lost" in line]
    assert len(complaints) == 1 if status == 400 else len(complaints) <= 1  # the others are tried again to the end
    assert not [line for line in lines if "Traceback" in line or "opentelemetry" in line]
