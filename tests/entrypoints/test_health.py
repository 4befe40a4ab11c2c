"""Probes, load and version."""

from __future__ import annotations

import httpx
import pytest

from tests.entrypoints.conftest import client_of
from tests.entrypoints.fake_dispatch_engine import FakeDispatchEngine
from vfastml import __version__
from vfastml.entrypoints.api_server import Gateway


async def test_alive_whatever_the_model_servers_do(client: httpx.AsyncClient, engine: FakeDispatchEngine) -> None:
    engine.ready = False
    assert (await client.get("/livez")).json() == {"status": "alive"}


@pytest.mark.parametrize("path", ["/readyz", "/health"])
async def test_ready(client: httpx.AsyncClient, engine: FakeDispatchEngine, path: str) -> None:
    assert (await client.get(path)).status_code == 200
    assert (await client.head(path)).status_code == 200
    engine.ready = False
    response = await client.get(path)
    assert (response.status_code, response.json(), response.headers["retry-after"]) == (
        503,
        {"status": "not_ready"},
        "1",
    )
    assert (await client.head(path)).status_code == 503


async def test_startup(client: httpx.AsyncClient, engine: FakeDispatchEngine) -> None:
    started = await client.get("/startupz")
    assert started.status_code == 200
    assert started.json() == {"status": "started", "phase": "ready", "progress": None, "elapsed_s": 3.5}
    engine.ready = False
    starting = await client.get("/startupz")
    assert starting.status_code == 503
    assert starting.json() == {"status": "starting", "phase": "weights", "progress": 0.25, "elapsed_s": 3.5}


async def test_draining(engine: FakeDispatchEngine) -> None:
    gateway = Gateway(dispatch_engine=engine)
    async with client_of(gateway) as client:
        gateway._gate.close()
        assert (await client.get("/livez")).status_code == 200
        assert (await client.get("/readyz")).json() == {"status": "draining"}
        refused = await client.post("/v1/completions", json={"prompt": "x"})
    assert refused.status_code == 503
    assert refused.json()["error"]["type"] == "service_unavailable"
    assert (refused.headers["retry-after"], refused.headers["connection"]) == ("1", "close")


async def test_load(client: httpx.AsyncClient, engine: FakeDispatchEngine) -> None:
    body = (await client.get("/load")).json()
    servers = body.pop("servers")
    assert body == {
        "running": 4,
        "waiting": 2,
        "free_blocks": 60,
        "total_blocks": 80,
        "open_requests": 0,
        "preemptions": 0,
        "chunked_prefills": 0,
        "prefix_hit_tokens": 32,
        "steps": 18,
        "prefix_query_tokens": 0,
        "prompt_tokens": 0,
        "generated_tokens": 0,
    }
    assert [server["endpoint"] for server in servers] == ["tcp://127.0.0.1:6500", "tcp://127.0.0.1:6501"]
    assert servers[0]["state"] == "live"
    assert servers[0]["load"]["running"] == 2
    assert servers[0]["limits"]["max_model_len"] == 512
    # No uri, not as an alias either: it may be a path of the model server's machine.
    assert servers[0]["models"] == [
        {"id": "tiny", "aliases": ["tiny-alias"], "max_model_len": 512, "created": 1700000000}
    ]


async def test_version(client: httpx.AsyncClient) -> None:
    assert (await client.get("/version")).json() == {"version": __version__}
