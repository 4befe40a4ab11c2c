"""Clients that go away, and clients that cannot wait."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.e2e.service import Service, running, wait_until
from tests.faults.streams import LONG, client_of, start_streams
from tests.faults.table import FaultTable

pytestmark = pytest.mark.faults

CLIENTS = 200
REPEATS = 10


@pytest.fixture
def roomy_service(tiny_models: dict[str, Path], tmp_path: Path) -> Iterator[Service]:
    """All clients run at a time."""
    arguments = ["--model-uri", str(tiny_models["llama"]), "--served-model-name", "tiny", "--dtype", "float32"]
    arguments += ["--kv-cache-memory", "60MB", "--max-num-seqs", str(CLIENTS), "--max-num-batched-tokens", "256"]
    with running(Service(tmp_path, arguments)) as service:
        yield service


def test_clients_go_away(roomy_service: Service, faults: FaultTable) -> None:
    async def run() -> tuple[float, int]:
        async with client_of(roomy_service.url) as probe, client_of(roomy_service.url) as client:
            streams = await start_streams(client, CLIENTS)
            before = (await probe.get("/load")).json()["steps"]
            began = time.monotonic()
            for stream in streams:
                stream.cancel()
            await asyncio.gather(*streams, return_exceptions=True)
            while (load := (await probe.get("/load")).json())["running"] or load["free_blocks"] < load["total_blocks"]:
                assert time.monotonic() - began < 30
                await asyncio.sleep(0.01)
            return time.monotonic() - began, load["steps"] - before

    took_s, steps = asyncio.run(asyncio.wait_for(run(), 90))
    faults.shows("F9", f"{CLIENTS} streams: all free after {took_s:.2f} s, {steps} steps after the first had gone")
    assert took_s < 1.0


@pytest.mark.parametrize("stream", [False, True])
def test_a_deadline_passes(tiny_service: Service, faults: FaultTable, stream: bool) -> None:
    headers = {"x-request-timeout": "0.5"}
    body = LONG | {"stream": stream, "n": 8}
    took_s = []
    for _ in range(REPEATS):
        began = time.monotonic()
        answer = httpx.post(f"{tiny_service.url}/v1/completions", json=body, headers=headers, timeout=60)
        took_s.append(time.monotonic() - began)
        assert '"deadline_exceeded"' in answer.text
        assert "[DONE]" not in answer.text
        assert answer.status_code == (200 if stream else 504)
        wait_until(tiny_service.all_free, 2.0, "it is cancelled in the model server")
    kind = "error events in streams" if stream else "504s"
    faults.shows("F12", f"{REPEATS} {kind} after {1e3 * min(took_s):.0f}–{1e3 * max(took_s):.0f} ms, then all free")
    assert min(took_s) >= 0.5
    assert max(took_s) < 0.75
