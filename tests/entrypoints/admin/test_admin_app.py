"""What the admin listener answers, and to whom."""

from __future__ import annotations

import hmac
from collections.abc import AsyncIterator

import httpx
import pytest

from tests.docs.markdown import DOCS, code_spans, section, table
from tests.entrypoints.conftest import client_of
from tests.entrypoints.fake_dispatch_engine import FakeDispatchEngine
from vfastml.entrypoints.admin.admin_app import admin_app
from vfastml.entrypoints.admin.admin_hooks import AdminHooks
from vfastml.entrypoints.api_server import Gateway
from vfastml.entrypoints.gateway_config import GatewayConfig
from vfastml.entrypoints.metrics.gateway_metrics import GatewayMetrics

ROUTES = ("/metrics", "/load", "/keys", "/livez")
ANN = {"name": "ann", "limits": {"max_open": 8}, "open": 1}


def is_admin(candidate: bytes) -> bool:
    return hmac.compare_digest(candidate, b"operator")


async def known_keys() -> list[dict[str, object]]:
    return [ANN]


def operators(engine: FakeDispatchEngine, hooks: AdminHooks, *, asks_key: bool = True) -> httpx.AsyncClient:
    app = admin_app(engine, GatewayMetrics(lambda: engine), hooks, asks_key=asks_key)
    return httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://admin")


@pytest.fixture
async def guarded(engine: FakeDispatchEngine) -> AsyncIterator[httpx.AsyncClient]:
    async with operators(engine, AdminHooks(is_admin, known_keys)) as client:
        yield client


@pytest.mark.rule("S3")
@pytest.mark.parametrize("path", [*ROUTES, "/nowhere", "/metrics/", "//metrics"])
async def test_an_operators_key_opens_and_nothing_else_does(guarded: httpx.AsyncClient, path: str) -> None:
    for headers in ({}, {"authorization": "Bearer client"}, {"x-api-key": "operato"}, {"authorization": "operator"}):
        for method in ("GET", "HEAD", "POST", "OPTIONS"):
            assert (await guarded.request(method, path, headers=headers)).status_code == 401
    for headers in ({"authorization": "Bearer operator"}, {"x-api-key": "operator"}):
        assert (await guarded.get(path, headers=headers)).status_code == (200 if path in ROUTES else 404)


@pytest.mark.rule("S3")
async def test_nobody_comes_in_when_the_last_operators_key_is_revoked(engine: FakeDispatchEngine) -> None:
    found: list[bool | None] = [True]
    async with operators(engine, AdminHooks(lambda _: found[0])) as client:
        assert (await client.get("/load", headers={"x-api-key": "operator"})).status_code == 200
        found[0] = None
        assert (await client.get("/load", headers={"x-api-key": "operator"})).status_code == 401
        assert (await client.get("/load")).status_code == 401


@pytest.mark.rule("S3")
async def test_nor_if_it_was_never_used(engine: FakeDispatchEngine) -> None:
    found: list[bool | None] = [True]
    async with operators(engine, AdminHooks(lambda _: found[0])) as client:
        found[0] = None
        assert (await client.get("/load")).status_code == 401


@pytest.mark.rule("S3")
async def test_a_listener_for_other_machines_asks_although_there_is_no_operator(engine: FakeDispatchEngine) -> None:
    app = admin_app(engine, GatewayMetrics(lambda: engine), AdminHooks(), asks_key=True, always=True)
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://admin") as client:
        assert (await client.get("/metrics")).status_code == 401


async def test_what_the_routes_say(guarded: httpx.AsyncClient, client: httpx.AsyncClient) -> None:
    guarded.headers["authorization"] = "Bearer operator"
    assert (await guarded.get("/load")).json() == (await client.get("/load")).json()
    assert (await guarded.get("/keys")).json() == {"keys": [ANN]}
    assert (await guarded.get("/livez")).json() == {"status": "alive"}
    assert "vfastml:build_info" in (await guarded.get("/metrics")).text


def test_the_documentation_has_these_routes() -> None:
    rows = table(section((DOCS / "api.md").read_text(), "## Admin listener"), "Operators' path")
    app = Gateway(dispatch_engine=FakeDispatchEngine()).admin_app
    assert [code_spans(path) for path, _ in rows] == [[route.path] for route in app.routes]


async def test_nothing_else_is_there_and_errors_are_envelopes(engine: FakeDispatchEngine) -> None:
    async with operators(engine, AdminHooks()) as client:
        for path in ("/", "/docs", "/v1/models", "/keys/ann", "/readyz"):
            answer = await client.get(path)
            assert (answer.status_code, answer.json()["error"]["type"]) == (404, "not_found_error")
        for path in ROUTES:
            assert (await client.post(path)).json()["error"]["code"] is None
            assert (await client.post(path)).status_code == 405


async def test_on_loopback_nobody_is_asked(engine: FakeDispatchEngine) -> None:
    async with operators(engine, AdminHooks(is_admin), asks_key=False) as client:
        assert (await client.get("/keys")).json() == {"keys": []}


@pytest.mark.rule("S3")
async def test_clients_do_not_get_metrics() -> None:
    gateway = Gateway(GatewayConfig(api_keys=("k",)), FakeDispatchEngine())
    async with client_of(gateway) as client:
        for path in ("/metrics", "/keys"):
            assert (await client.get(path)).status_code == 401
            assert (await client.get(path, headers={"x-api-key": "k"})).status_code == 404


async def test_another_server_can_serve_it() -> None:
    gateway = Gateway(dispatch_engine=FakeDispatchEngine())
    transport = httpx.ASGITransport(gateway.admin_app)
    async with client_of(gateway) as clients, httpx.AsyncClient(transport=transport, base_url="http://a") as client:
        await clients.get("/version")
        counted = 'vfastml:http_requests_total{method="GET",route="/version",status="200"} 1.0'
        assert counted in (await client.get("/metrics")).text


def test_a_gateway_that_measures_nothing_has_none() -> None:
    gateway = Gateway(GatewayConfig(admin=False), FakeDispatchEngine())
    gateway.build()
    with pytest.raises(RuntimeError, match="admin=False"):
        _ = gateway.admin_app
