"""The examples that no other test runs, in processes of their own."""

from __future__ import annotations

import runpy
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.e2e.program import ROOT, Program
from tests.e2e.service import free_port
from tests.entrypoints.conftest import client_of
from tests.entrypoints.fake_dispatch_engine import FakeDispatchEngine
from vfastml.engine.dispatch_requests import SamplingParams, TextGenerationReq
from vfastml.entrypoints import api_server
from vfastml.entrypoints.api_server import Gateway

EXAMPLES = ROOT / "examples"


@pytest.fixture
def custom_url(tmp_path: Path) -> Iterator[str]:
    """The custom server behind the custom gateway, on free ports."""
    rpc_port, port = str(free_port()), str(free_port())

    def started(name: str) -> Program:
        text = (EXAMPLES / f"{name}.py").read_text().replace("6501", rpc_port).replace("8081", port)
        return Program(tmp_path, name, text)

    programs = [started(name) for name in ("custom_server", "custom_gateway")]
    try:
        programs[1].wait_ready(f"http://127.0.0.1:{port}")
        yield f"http://127.0.0.1:{port}"
        for program in programs:
            program.end()
    finally:
        for program in programs:
            program.kill()


def test_a_custom_server_answers_over_http(custom_url: str) -> None:
    def ask(body: object) -> httpx.Response:
        return httpx.post(f"{custom_url}/v1/sentiment", json=body, timeout=60)

    good, bad, neither = (ask({"text": text}).json()["output"] for text in ("I love it", "An awful day", "A day"))
    assert 0 < bad < neither == 0.5 < good < 1
    refused = ask({"text": 5})
    assert (refused.status_code, refused.json()["error"]["param"]) == (400, "text")


def test_a_custom_server_is_short() -> None:
    lines = (EXAMPLES / "custom_server.py").read_text().splitlines()
    assert len([line for line in lines if line.strip()]) <= 20


async def test_own_route_passes_on_all_that_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    engine = FakeDispatchEngine()
    gateway = Gateway(dispatch_engine=engine)
    monkeypatch.setattr(api_server, "FastMLServer", gateway)
    runpy.run_path(str(EXAMPLES / "own_route.py"))
    body = {"messages": [{"role": "user", "content": "Hi"}], "model": "x", "n": 2, "cache_salt": "s"}
    body |= {"temperature": 0, "stop": ".", "max_tokens": 5}
    async with client_of(gateway) as client:
        answer = await client.post("/v1/chat/completions", json=body)
        streamed = await client.post("/v1/chat/completions", json={**body, "stream": True})
    assert len(answer.json()["choices"]) == 2
    [work] = engine.requests
    assert isinstance(work, TextGenerationReq)
    assert (work.model_uri, work.n, work.cache_salt) == ("smollm2-135m-instruct", 2, "s")
    assert work.sampling == SamplingParams(temperature=0.0, max_tokens=5, stop=(".",))
    assert (streamed.status_code, streamed.json()["error"]["param"]) == (400, "stream")


def test_offline_text(builtin_folder: Path) -> None:
    command = [sys.executable, EXAMPLES / "offline.py"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    first, *_, last = done.stdout.strip().splitlines()
    assert first.startswith("One, two, three, -> ' four, five")
    assert "Paris" in last


@pytest.mark.parametrize("name", ["colour_names", "image_colours", "offline", "own_model_server", "own_route"])
def test_options_are_explained(name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys, "argv", [f"{name}.py", "--help"])
    monkeypatch.setattr(api_server, "FastMLServer", Gateway(dispatch_engine=FakeDispatchEngine()))
    with pytest.raises(SystemExit) as end:
        runpy.run_path(str(EXAMPLES / f"{name}.py"), run_name="__main__")
    assert end.value.code == 0
    assert "default: " in capsys.readouterr().out
