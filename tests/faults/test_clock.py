"""The wall clock jumps. Only the monotonic one decides anything, so nothing may happen."""

from __future__ import annotations

import ast
import asyncio
import os
import shutil
import struct
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest

from tests.e2e.service import Service, running
from tests.faults.streams import DONE, LONG, StreamEnd, client_of, start_streams
from tests.faults.table import FaultTable

ROOT = Path(__file__).parents[2]
SHIFTED_CLOCK = Path(__file__).with_name("shifted_clock.cpp")
COMPILER = shutil.which("g++")

DAY_S = 86_400
DEADLINE_S = 2
JUMPS_S = (DAY_S, -DAY_S, 3650 * DAY_S, 1, 0)

SHOWN_ONLY = {
    "prebuilt_apps/cli/top/admin_client.py",  # how long a service is up
    "vfastml/entrypoints/ledger/books.py",  # days and months of UTC, which is what quotas are about
    "vfastml/entrypoints/ledger/ledger.py",  # when a request ended
    "vfastml/entrypoints/tracing/request_trace.py",  # when a trace began
    "vfastml/entrypoints/openai/replies.py",  # `created` of an answer
    "vfastml/entrypoints/openai/responses/growing_response.py",  # `completed_at` of a response
    "vfastml/entrypoints/openai/responses/response_body.py",  # `created_at` of one
    "vfastml/models_servers/model_server.py",  # `created` of a model
    "vfastml/models_servers/model_server_text_hf.py",
    "vfastml/text_engine/step_trace.py",  # a file's name
}
"""Who may read the wall clock: to show it, and never to reckon with it, but for the days of quotas."""


def reads_wall_clock(node: ast.AST) -> bool:
    """`time.time`, `time.time_ns`, `datetime.now` and the like, and names imported from `time`."""
    if isinstance(node, ast.Attribute):
        owner = node.value.attr if isinstance(node.value, ast.Attribute) else getattr(node.value, "id", None)
        return (owner, node.attr) in {
            *(("time", name) for name in ("time", "time_ns", "localtime", "gmtime", "ctime", "clock_gettime")),
            *(("datetime", name) for name in ("now", "utcnow", "today")),
            ("date", "today"),
        }
    return (
        isinstance(node, ast.ImportFrom) and node.module == "time" and {a.name for a in node.names} & {"time"} != set()
    )


def test_the_wall_clock_is_only_shown() -> None:
    sources = [*(ROOT / "vfastml").rglob("*.py"), *(ROOT / "prebuilt_apps").rglob("*.py")]
    readers = {
        str(path.relative_to(ROOT))
        for path in sources
        if any(map(reads_wall_clock, ast.walk(ast.parse(path.read_text()))))
    }
    assert readers == SHOWN_ONLY


@pytest.fixture
def jump(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """Shifts the wall clock of every process that is started from now on, by seconds from the true time."""
    if COMPILER is None:
        pytest.skip("there is no C++ compiler")
    library, shift = tmp_path / "shifted_clock.so", tmp_path / "shift"
    subprocess.run([COMPILER, "-O1", "-shared", "-fPIC", "-o", library, SHIFTED_CLOCK], check=True, timeout=60)
    shift.write_bytes(struct.pack("=q", 0))
    monkeypatch.setenv("LD_PRELOAD", str(library))
    monkeypatch.setenv("VFASTML_TEST_CLOCK_SHIFT", str(shift))

    def to(seconds: int) -> None:
        with shift.open("r+b") as file:
            os.pwrite(file.fileno(), struct.pack("=q", seconds), 0)

    return to


@pytest.fixture
def shifted_service(
    jump: Callable[[int], None], tiny_models: dict[str, Path], tmp_path: Path
) -> Iterator[tuple[Service, Callable[[int], None]]]:
    """A service whose wall clock can be made to jump, and what makes it do so."""
    arguments = ["--model-uri", str(tiny_models["llama"]), "--served-model-name", "tiny", "--kv-cache-memory", "20MB"]
    with running(Service(tmp_path, arguments)) as service:
        yield service, jump


def shown_shift_s(service: Service) -> float:
    """By how much the time of an answer differs from the true one."""
    answer = service.http.post("/v1/completions", json={"model": "tiny", "prompt": "x", "max_tokens": 1})
    return float(answer.json()["created"] - time.time())


async def seconds_to_deadline(client: httpx.AsyncClient, jump: Callable[[int], None]) -> float:
    """Of a request during which the clock goes a day ahead, and then a day back."""
    began = time.monotonic()
    body = LONG | {"stream": False, "n": 16}
    header = {"x-request-timeout": str(DEADLINE_S)}
    waiting = asyncio.create_task(client.post("/v1/completions", json=body, headers=header))
    for seconds in (DAY_S, -DAY_S, 0):
        await asyncio.sleep(DEADLINE_S / 4)
        jump(seconds)
    assert (await waiting).status_code == 504
    return time.monotonic() - began


@pytest.mark.faults
def test_jumps(shifted_service: tuple[Service, Callable[[int], None]], faults: FaultTable) -> None:
    service, jump = shifted_service

    async def run() -> tuple[list[StreamEnd], float]:
        async with client_of(service.url) as client:
            streams = await start_streams(client, 16)
            for seconds in JUMPS_S:
                jump(seconds)
                assert abs(await asyncio.to_thread(shown_shift_s, service) - seconds) < 5
                await asyncio.sleep(0.3)
                assert not any(stream.done() for stream in streams), "they were to run all the while"
                assert [server["state"] for server in (await client.get("/load")).json()["servers"]] == ["live"]
            ends = [await stream for stream in streams]
            return ends, await seconds_to_deadline(client, jump)

    ends, deadline_s = asyncio.run(asyncio.wait_for(run(), 120))
    assert [end.event for end in ends] == [DONE] * 16
    log = service.log("api_server")
    assert not any(word in log for word in ("hangs", "is gone", "Traceback"))
    faults.shows(
        "F25",
        f"{len(JUMPS_S)} jumps of up to ten years under 16 streams: all whole, no alarm; a deadline of {DEADLINE_S} s "
        f"came after {deadline_s:.2f} s",
    )
    assert DEADLINE_S <= deadline_s < DEADLINE_S + 0.5
