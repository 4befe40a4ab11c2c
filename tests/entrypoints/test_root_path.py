"""Behind a proxy that publishes the gateway under a prefix, whether it takes the prefix off or not."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator

import httpx
import pytest
from fastapi import FastAPI
from hypothesis import given
from hypothesis import strategies as st
from starlette._utils import get_route_path
from starlette.requests import Request
from starlette.staticfiles import StaticFiles

from tests.entrypoints.conftest import client_of
from tests.entrypoints.fake_dispatch_engine import FakeDispatchEngine
from vfastml.entrypoints.api_server import Gateway
from vfastml.entrypoints.gateway_config import GatewayConfig
from vfastml.entrypoints.root_path import route_path

PREFIX = "/llm/east"
KEY = {"authorization": "Bearer k"}
AS_SENT_ON = ["", PREFIX]
"""What a proxy leaves of the prefix."""


@pytest.fixture
def gateway(engine: FakeDispatchEngine) -> Gateway:
    return Gateway(GatewayConfig(root_path=PREFIX, api_keys=("k",), access_log="all"), engine)


@pytest.fixture
async def client(gateway: Gateway) -> AsyncIterator[httpx.AsyncClient]:
    async with client_of(gateway) as client:
        yield client


@pytest.mark.parametrize("sent_on", AS_SENT_ON)
async def test_routes_answer(client: httpx.AsyncClient, sent_on: str) -> None:
    for path in ("/v1/models", "/v1/models/tiny", "/version"):
        assert (await client.get(sent_on + path, headers=KEY)).status_code == 200
    answer = await client.post(f"{sent_on}/v1/chat/completions", json={"messages": "x"}, headers=KEY)
    assert answer.json()["choices"][0]["message"]["content"] == "Hello world"


@pytest.mark.parametrize("sent_on", AS_SENT_ON)
async def test_documents_name_the_prefix(client: httpx.AsyncClient, sent_on: str) -> None:
    page = await client.get(f"{sent_on}/docs", headers=KEY)
    assert (page.status_code, f"'{PREFIX}/openapi.json'" in page.text) == (200, True)
    document = (await client.get(f"{sent_on}/openapi.json", headers=KEY)).json()
    assert document["servers"] == [{"url": PREFIX}]
    assert "/v1/chat/completions" in document["paths"]


@pytest.mark.rule("S3")
@pytest.mark.parametrize("sent_on", AS_SENT_ON)
async def test_probes_are_free_and_nothing_else(client: httpx.AsyncClient, sent_on: str) -> None:
    for path in ("/livez", "/readyz", "/startupz", "/health"):
        assert (await client.get(sent_on + path)).status_code == 200
    for path in ("/v1/models", "/livez/", "//livez", "/livezz", PREFIX * 2 + "/livez", "/docs", "", "/"):
        assert (await client.get(sent_on + path)).status_code == 401


@pytest.mark.rule("S3")
async def test_look_alikes_of_the_prefix_are_not_the_prefix(client: httpx.AsyncClient) -> None:
    for path in (f"{PREFIX}x/livez", "/llm/livez", f"{PREFIX.upper()}/livez", f"/{PREFIX}/livez", f"{PREFIX}livez"):
        assert (await client.get(path)).status_code == 401
        assert (await client.get(path, headers=KEY)).status_code == 404


@pytest.mark.parametrize("sent_on", AS_SENT_ON)
async def test_probes_work_and_go_unlogged_while_draining(
    gateway: Gateway, client: httpx.AsyncClient, caplog: pytest.LogCaptureFixture, sent_on: str
) -> None:
    gateway._gate.close()
    with caplog.at_level(logging.INFO, "vfastml"):
        assert (await client.get(f"{sent_on}/livez")).status_code == 200
        assert (await client.get(f"{sent_on}/v1/models", headers=KEY)).status_code == 503
    [line] = caplog.messages
    assert line.startswith("GET /v1/models 503 ")


@pytest.mark.parametrize("sent_on", AS_SENT_ON)
async def test_mounted_apps_work(gateway: Gateway, client: httpx.AsyncClient, tmp_path: object, sent_on: str) -> None:
    gateway.app.mount("/files", StaticFiles(directory=str(tmp_path)))
    with open(f"{tmp_path}/hello.txt", "w") as file:  # noqa: ASYNC230
        file.write("hello")
    assert (await client.get(f"{sent_on}/files/hello.txt", headers=KEY)).text == "hello"


@pytest.mark.parametrize("sent_on", AS_SENT_ON)
async def test_urls_that_a_route_makes_have_the_prefix(
    gateway: Gateway, client: httpx.AsyncClient, sent_on: str
) -> None:
    @gateway.app.get("/where")
    async def where(request: Request) -> str:
        return str(request.url_for("where"))

    assert (await client.get(f"{sent_on}/where", headers=KEY)).json() == f"http://gateway{PREFIX}/where"


async def test_a_server_that_knows_the_prefix_itself(gateway: Gateway) -> None:
    transport = httpx.ASGITransport(gateway.build(), root_path="/other")
    async with httpx.AsyncClient(transport=transport, base_url="http://gateway") as client:
        assert (await client.get("/other/livez")).status_code == 200
        assert (await client.get("/other/v1/models")).status_code == 401
        assert (await client.get("/other/openapi.json", headers=KEY)).json()["servers"] == [{"url": "/other"}]
        assert (await client.get(f"{PREFIX}/livez")).status_code == 401


async def test_mounted_in_another_app(engine: FakeDispatchEngine) -> None:
    inner = Gateway(GatewayConfig(api_keys=("k",)), engine).app
    outer = FastAPI(lifespan=inner.router.lifespan_context)
    outer.mount("/ml", inner)
    async with (
        outer.router.lifespan_context(outer),
        httpx.AsyncClient(transport=httpx.ASGITransport(outer), base_url="http://gateway") as client,
    ):
        assert engine.running
        assert (await client.get("/ml/livez")).status_code == 200
        assert (await client.get("/ml/v1/models")).status_code == 401
        assert (await client.get("/ml/v1/models", headers=KEY)).status_code == 200


paths = st.text("/ab", max_size=6).map("/".__add__)


@pytest.mark.rule("S3")
@given(root_path=st.just("") | paths, path=paths)
def test_the_guards_see_the_path_that_the_router_sees(root_path: str, path: str) -> None:
    scope = {"root_path": root_path, "path": path}
    assert route_path(scope) == get_route_path(scope)


@pytest.mark.parametrize("path", ["llm", "/", "/llm/", "//llm", "/a//b", "/a b", "/a?b", "/a#b", "/ä", "/%61"])
def test_bad_root_paths_are_refused(path: str) -> None:
    with pytest.raises(ValueError, match="bad root path"):
        GatewayConfig(root_path=path)


def test_a_prefix_that_could_be_a_route_is_refused(engine: FakeDispatchEngine) -> None:
    paths = {route.path for route in Gateway(dispatch_engine=engine).build().routes}  # type: ignore[attr-defined]
    assert len(paths) > 10
    for path in paths:
        parts = path.partition("/{")[0].split("/")
        for end in range(2, len(parts) + 1):
            with pytest.raises(ValueError, match="routes of the gateway begin with /"):
                GatewayConfig(root_path="/".join(parts[:end]))
    assert GatewayConfig(root_path="/llm/v1").root_path == "/llm/v1"
