"""Keys: every route asks for one but the probes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import httpx
import pytest
from fastapi import BackgroundTasks
from starlette.middleware.base import RequestResponseEndpoint
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Message

from tests.entrypoints.conftest import client_of
from tests.entrypoints.fake_dispatch_engine import FakeDispatchEngine
from vfastml.engine.dispatch_requests import TextGenerationReq
from vfastml.engine.dispatch_task import DispatchTask
from vfastml.engine.request_id import gen_request_id
from vfastml.entrypoints.api_server import Gateway
from vfastml.entrypoints.auth import FREE_PATHS
from vfastml.entrypoints.bodies import SMALL_BODY_BYTES
from vfastml.entrypoints.gateway_config import GatewayConfig

KEYS = ("first-key", "second-kéy")


@pytest.fixture
def gateway(engine: FakeDispatchEngine) -> Gateway:
    gateway = Gateway(GatewayConfig(api_keys=KEYS), engine)

    @gateway.app.get("/mine")
    async def mine() -> dict[str, str]:
        return {}

    return gateway


@pytest.fixture
async def guarded(gateway: Gateway) -> AsyncIterator[httpx.AsyncClient]:
    async with client_of(gateway) as client:
        yield client


def bearer(key: str) -> dict[str, bytes]:
    return {"authorization": b"Bearer " + key.encode()}


@pytest.mark.rule("S3")
async def test_every_route_but_the_probes_asks_for_a_key(gateway: Gateway, guarded: httpx.AsyncClient) -> None:
    routes = [(method, route.path) for route in gateway.build().routes for method in route.methods]  # type: ignore[attr-defined]
    asked = 0
    for method, path in routes:
        response = await guarded.request(method, path)
        if path in FREE_PATHS:
            assert response.status_code == 200
        else:
            assert response.status_code == 401
            asked += 1
    assert asked > 8


@pytest.mark.rule("S3")
@pytest.mark.parametrize(
    "path", ["/livez/", "//livez", "/LIVEZ", "/livez/../mine", "/%2Flivez", "/mine?x=/livez", "/none", "/livez%00"]
)
async def test_look_alikes_of_free_paths_are_not_free(guarded: httpx.AsyncClient, path: str) -> None:
    assert (await guarded.get(path)).status_code == 401


@pytest.mark.parametrize("key", KEYS)
async def test_each_key_opens(guarded: httpx.AsyncClient, key: str) -> None:
    for headers in (bearer(key), {"authorization": b"bearer  " + key.encode()}, {"x-api-key": key.encode()}):
        assert (await guarded.get("/mine", headers=headers)).status_code == 200


@pytest.mark.rule("S3")
@pytest.mark.parametrize(
    "headers",
    [
        {},
        bearer("wrong"),
        bearer("FIRST-KEY"),
        bearer("first-ke"),
        bearer("first-key2"),
        bearer(""),
        {"authorization": b"first-key"},
        {"authorization": b"Basic first-key"},
        {"x-api-key": b""},
        {"authorization": b"Bearer \xff\xfe"},
    ],
)
async def test_other_credentials_do_not(guarded: httpx.AsyncClient, headers: dict[str, bytes]) -> None:
    response = await guarded.get("/mine", headers=headers)
    error = response.json()["error"]
    assert (response.status_code, error["type"], error["code"]) == (401, "authentication_error", "invalid_api_key")
    assert response.headers["www-authenticate"] == "Bearer"


async def test_nobody_has_more_keys_than_headers_for_them(guarded: httpx.AsyncClient) -> None:
    """Each is compared with all that there are."""
    both = [("x-api-key", "no-key"), ("authorization", "Bearer first-key")]
    assert (await guarded.get("/version", headers=both)).status_code == 200
    assert (await guarded.get("/version", headers=[*both, ("x-api-key", "first-key")])).status_code == 401


async def test_preflight_needs_no_key(guarded: httpx.AsyncClient) -> None:
    assert (await guarded.options("/mine")).status_code != 401


async def test_without_keys_any_token_will_do(client: httpx.AsyncClient) -> None:
    for headers in ({}, bearer("whatever"), {"x-api-key": "x"}):
        assert (await client.get("/v1/models", headers=headers)).status_code == 200


@pytest.mark.rule("S11")
async def test_keys_do_not_share_a_prefix_cache(guarded: httpx.AsyncClient, engine: FakeDispatchEngine) -> None:
    async def salt_for(key: str, **fields: str) -> str:
        await guarded.post("/v1/completions", json={"prompt": "x", **fields}, headers=bearer(key))
        request = engine.requests[-1]
        assert isinstance(request, TextGenerationReq)
        return request.cache_salt

    first, second = KEYS
    salts = [await salt_for(key, **fields) for key in KEYS for fields in ({}, {"cache_salt": "mine"})]
    assert len(set(salts)) == 4
    assert await salt_for(first) == salts[0]
    assert not any(key in salt for key in (first, second) for salt in salts)


@pytest.mark.rule("S11")
async def test_routes_of_ones_own_keep_keys_apart_too(
    gateway: Gateway, guarded: httpx.AsyncClient, engine: FakeDispatchEngine
) -> None:
    def ask() -> DispatchTask:
        return engine.dispatch(TextGenerationReq(request_id=gen_request_id("mine"), prompt="x"))

    async def ask_later() -> None:
        await ask().get_result()

    @gateway.app.post("/mine")
    async def mine(background: BackgroundTasks) -> None:
        background.add_task(ask_later)
        await asyncio.create_task(ask_later())
        await ask().get_result()

    @gateway.app.middleware("http")
    async def pass_on(request: Request, call_next: RequestResponseEndpoint) -> Response:
        return await call_next(request)

    for key in KEYS:
        assert (await guarded.post("/mine", headers=bearer(key))).status_code == 200
    salts = [request.cache_salt for request in engine.requests if isinstance(request, TextGenerationReq)]
    assert len(salts) == 6
    first, second = set(salts[:3]), set(salts[3:])
    assert len(first) == len(second) == 1
    assert "" not in first | second
    assert first != second
    ask()
    assert engine.requests[-1].cache_salt == ""  # type: ignore[union-attr]


@pytest.mark.rule("S3")
async def test_web_sockets_are_closed(gateway: Gateway) -> None:
    sent: list[Message] = []

    async def receive() -> Message:
        return {"type": "websocket.connect"}

    async def send(message: Message) -> None:
        sent.append(message)

    await gateway.build()({"type": "websocket", "path": "/mine", "headers": [], "query_string": b""}, receive, send)
    assert sent == [{"type": "websocket.close", "code": 1008}]


@pytest.mark.rule("S4")
@pytest.mark.parametrize(("method", "path"), [("GET", "/livez"), ("OPTIONS", "/v1/completions")])
async def test_without_a_key_only_small_bodies_are_read(engine: FakeDispatchEngine, method: str, path: str) -> None:
    async with client_of(Gateway(GatewayConfig(api_keys=("k",)), engine)) as client:
        small = await client.request(method, path, content=bytes(SMALL_BODY_BYTES))
        large = await client.request(method, path, content=bytes(SMALL_BODY_BYTES + 1))
    assert small.status_code in (200, 405)
    assert large.status_code == 413
