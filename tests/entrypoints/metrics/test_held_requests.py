"""Requests that wait for a model server are seen while they wait."""

from __future__ import annotations

import httpx

from tests.engine.fake_server import FakeServer, until
from tests.entrypoints.conftest import client_of
from vfastml.engine.dispatch_requests import TextGenerationReq
from vfastml.entrypoints.api_server import Gateway
from vfastml.entrypoints.gateway_config import GatewayConfig


async def test_held_and_then_sent() -> None:
    server = FakeServer(loading=True)
    gateway = Gateway(GatewayConfig(model_servers=(server.endpoint,)))
    engine = gateway.dispatch_engine
    transport = httpx.ASGITransport(gateway.admin_app)
    async with client_of(gateway), httpx.AsyncClient(transport=transport, base_url="http://admin") as operator:
        await engine.start()
        tasks = [engine.dispatch(TextGenerationReq(request_id=name, prompt="one")) for name in ("a", "b")]
        await until(lambda: server.joins and engine.held_requests == 2)
        assert "vfastml:held_requests 2.0" in (await operator.get("/metrics")).text
        server.become_ready()
        assert [(await task.get_result()).error for task in tasks] == [None, None]
        assert "vfastml:held_requests 0.0" in (await operator.get("/metrics")).text
        await engine.close()
    await server.stop()
