"""A model server is killed, or frozen, under load."""

from __future__ import annotations

import asyncio
import signal
import time

import pytest

from tests.e2e.service import Service, wait_until
from tests.faults.streams import StreamEnd, client_of, start_streams
from tests.faults.table import FaultTable

pytestmark = pytest.mark.faults

STREAMS = 32
KILLS = 5
FREEZES = 10


def lose(service: Service, how: signal.Signals) -> tuple[float, list[StreamEnd], float]:
    """When the signal was sent, how the streams ended, and seconds until `/readyz` said 503."""

    async def run() -> tuple[float, list[StreamEnd], float]:
        async with client_of(service.url) as client:
            streams = await start_streams(client, STREAMS)
            assert service.model_server is not None
            service.model_server.send_signal(how)
            sent = time.monotonic()
            while (await client.get("/readyz")).status_code == 200:
                await asyncio.sleep(0.005)
            unready_s = time.monotonic() - sent
            return sent, [await stream for stream in streams], unready_s

    return asyncio.run(asyncio.wait_for(run(), 60))


def last_end_s(sent: float, ends: list[StreamEnd]) -> float:
    """Seconds from the signal to the last stream's end; every one has to have ended in an error."""
    assert {end.error_code for end in ends} == {"server_lost"}
    return max(end.ended_s for end in ends) - sent


def test_killed(tiny_service: Service, faults: FaultTable) -> None:
    ends_s, unready_s, serving_s = [], [], []
    for _ in range(KILLS):
        sent, ends, unready = lose(tiny_service, signal.SIGKILL)
        ends_s.append(last_end_s(sent, ends))
        unready_s.append(unready)
        refused = tiny_service.chat(model="tiny", messages="x")
        assert (refused.status_code, tiny_service.status("/livez")) == (503, 200)
        assert int(refused.headers["retry-after"]) >= 1
        assert tiny_service.model_server is not None
        tiny_service.model_server.wait(5)
        began = time.monotonic()
        tiny_service.start_model_server()
        tiny_service.wait_ready()
        serving_s.append(time.monotonic() - began)
        assert tiny_service.chat(model="tiny", messages="x", max_tokens=3).status_code == 200
    faults.shows(
        "F1",
        f"{KILLS} times, at most: {max(ends_s):.2f} s to the last stream's end, {max(unready_s):.2f} s to 503; a new "
        f"one served {max(serving_s):.1f} s after its start",
    )
    assert max(ends_s) < 1.0
    assert max(unready_s) < 1.0
    assert max(serving_s) < 15.0


def test_frozen(tiny_service: Service, faults: FaultTable) -> None:
    undisturbed = greedy_text(tiny_service)
    ends_s, unready_s, back_s = [], [], []
    for _ in range(FREEZES):
        sent, ends, unready = lose(tiny_service, signal.SIGSTOP)
        ends_s.append(last_end_s(sent, ends))
        unready_s.append(unready)
        assert tiny_service.chat(model="tiny", messages="x").status_code == 503
        assert tiny_service.model_server is not None
        tiny_service.model_server.send_signal(signal.SIGCONT)
        woken = time.monotonic()
        tiny_service.wait_ready()
        back_s.append(time.monotonic() - woken)
        # What the woken process still had to say for the old streams must not turn up in this one.
        assert greedy_text(tiny_service) == undisturbed
        wait_until(tiny_service.all_free, 5.0, "the old streams are dropped")
    faults.shows(
        "F2",
        f"{FREEZES} times, at most: {max(ends_s):.2f} s to the last stream's end, {max(unready_s):.2f} s to 503, "
        f"{max(back_s):.2f} s from waking to ready; nothing of the old streams came",
    )
    assert max(ends_s) < 2.0
    assert max(unready_s) < 2.0


def greedy_text(service: Service) -> str:
    """Of one prompt, always the same."""
    body = {"model": "tiny", "prompt": "a fixed prompt", "max_tokens": 40, "temperature": 0, "ignore_eos": True}
    answer = service.http.post("/v1/completions", json=body)
    assert answer.status_code == 200, answer.text
    return str(answer.json()["choices"][0]["text"])
