"""A gateway for another ASGI server: `uvicorn tests.entrypoints.served_app:app`. Nothing builds it beforehand."""

from __future__ import annotations

from tests.entrypoints.fake_dispatch_engine import FakeDispatchEngine
from vfastml.entrypoints.api_server import Gateway
from vfastml.entrypoints.gateway_config import GatewayConfig

gateway = Gateway(GatewayConfig(api_keys=("k",)), FakeDispatchEngine())
app = gateway.app


@app.get("/version")
async def version() -> str:
    return "mine"
