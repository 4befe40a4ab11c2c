"""Without a key nothing answers but the probes and preflight, whatever the path looks like."""

from __future__ import annotations

import asyncio
import itertools
import random
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
from starlette.types import Message

from tests.entrypoints.fake_dispatch_engine import FakeDispatchEngine
from tests.entrypoints.keys.key_files import bearer
from vfastml.entrypoints.api_server import Gateway
from vfastml.entrypoints.auth import FREE_PATHS
from vfastml.entrypoints.gateway_config import GatewayConfig

pytestmark = pytest.mark.rule("S3")

METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "TRACE", "CONNECT", "QUERY", "options", "FREE")
ODD_PATHS = (
    *("", "/", "//", "*", "/v1", "/v2/models", "/metrics", "/load", "/keys", "/docs", "/redoc", "/openapi.json"),
    *("/docs/oauth2-redirect", "/docs/", "//v1/models", "/v1//models", "/v1/models/", "/V1/MODELS", "v1/models"),
    *("/livez/", "//livez", "/LIVEZ", "livez", "/livez/..", "/livez/../v1/models", "/livez;/v1/models", "/livez?"),
    *("/livez%2f..", "/livez%2fv1", "/livez\x00", "/livez ", " /livez", "/./livez", "/health/../load", "/l\u0131vez"),
    *("/http://gateway/livez", "http://gateway/livez", "/livez#", "/livez\n", "/readyz\r\nx: y", "/\uff4civez"),
)


@pytest.fixture(params=["", "/llm"])
def gateway(request: pytest.FixtureRequest) -> Gateway:
    """Also with routes of one's own, one of which looks like a free one."""
    gateway = Gateway(GatewayConfig(api_keys=("k",), root_path=request.param), FakeDispatchEngine())
    gateway.app.get("/mine")(nothing)
    gateway.app.post("/livez/{rest:path}")(nothing)
    gateway.app.mount("/livezx", lambda *_: None)  # type: ignore[arg-type]
    return gateway


def nothing() -> dict[str, str]:
    return {}


async def status(gateway: Gateway, method: str, path: str, headers: dict[str, str] | None = None) -> int:
    """Straight to the app: clients and HTTP parsers would tidy the path up."""
    sent: list[Message] = []
    scope: dict[str, Any] = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "scheme": "http",
        "method": method,
        "path": path,
        "raw_path": path.encode(),
        "root_path": "",
        "query_string": b"",
        "headers": [(name.encode(), value.encode()) for name, value in (headers or {}).items()],
        "client": ("127.0.0.1", 1),
        "server": ("127.0.0.1", 2),
    }

    bodies = [b""]

    async def receive() -> Message:
        if not bodies:
            await asyncio.Event().wait()
        return {"type": "http.request", "body": bodies.pop(), "more_body": False}

    async def send(message: Message) -> None:
        sent.append(message)

    await gateway.build()(scope, receive, send)
    return int(sent[0]["status"])


def routes_of(gateway: Gateway) -> list[tuple[str, str]]:
    return [
        (method, route.path)  # type: ignore[attr-defined]
        for route in gateway.build().routes
        for method in getattr(route, "methods", None) or METHODS
    ]


async def test_every_route_that_there_is(gateway: Gateway) -> None:
    routes = routes_of(gateway)
    assert len(routes) > 30
    assert {"/docs", "/openapi.json", "/v1/chat/completions", "/mine", "/livezx"} <= {path for _, path in routes}
    for method, path in routes:
        expected = {200} if path in FREE_PATHS else {401}
        assert await status(gateway, method, path) in expected, (method, path)


async def test_paths_that_look_odd(gateway: Gateway) -> None:
    for method, path in itertools.product(METHODS, ODD_PATHS):
        assert await status(gateway, method, path) == 401, (method, path)


async def test_random_paths(gateway: Gateway) -> None:
    chance = random.Random(8)
    parts = [
        *FREE_PATHS,
        "/v1/models",
        "/",
        "//",
        ".",
        "..",
        "%2f",
        "%00",
        ";",
        "?",
        "#",
        "@",
        "\\",
        "\x00",
        "\u2044",
        "x",
    ]
    for _ in range(2000):
        path = "".join(chance.choices(parts, k=chance.randint(1, 5)))
        if path not in FREE_PATHS:
            assert await status(gateway, "GET", path) == 401, path


async def test_host_and_forwarding_headers_open_nothing(gateway: Gateway) -> None:
    """A URL that is put together from them is not what is asked for."""
    chance = random.Random(9)
    parts = [
        "gateway",
        "/livez",
        "livez",
        "?",
        "#",
        "@",
        ":80",
        "\\",
        "..",
        "a/livez?",
        "[::1]",
        "%2flivez",
        " ",
        "x" * 300,
    ]
    names = ("host", "x-forwarded-host", "x-forwarded-prefix", "x-original-url", "x-rewrite-url", "x-forwarded-path")
    for _ in range(500):
        value = "".join(chance.choices(parts, k=chance.randint(1, 4)))
        headers = dict.fromkeys(chance.sample(names, k=chance.randint(1, len(names))), value)
        assert await status(gateway, "GET", "/v1/models", headers) == 401, headers


async def test_with_the_key_they_are_what_they_are(gateway: Gateway) -> None:
    found = {path: await status(gateway, "GET", path, bearer("k")) for path in ("/docs", "/v1/models", "/livez/", "/x")}
    assert found == {"/docs": 200, "/v1/models": 200, "/livez/": 405, "/x": 404}


async def test_what_is_free_says_nothing_of_models_or_keys() -> None:
    gateway = Gateway(GatewayConfig(api_keys=("k",)), FakeDispatchEngine())
    async for client in _client(gateway):
        for path in FREE_PATHS:
            text = (await client.get(path)).text
            assert "tiny" not in text
            assert "key" not in text


async def _client(gateway: Gateway) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(transport=httpx.ASGITransport(gateway.build()), base_url="http://g") as client:
        yield client
