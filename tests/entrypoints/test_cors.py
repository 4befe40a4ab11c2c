"""Web pages of other origins: only where it is configured, and then errors and streams too."""

from __future__ import annotations

from collections.abc import AsyncIterator

import httpx
import pytest

from tests.entrypoints.conftest import client_of
from tests.entrypoints.fake_dispatch_engine import FakeDispatchEngine, fail_with
from vfastml.entrypoints.api_server import Gateway
from vfastml.entrypoints.gateway_config import GatewayConfig
from vfastml.entrypoints.keys.key_limits import LIMIT_HEADERS
from vfastml.errors import RateLimitError

PAGE = "https://chat.example.org"
KEY = {"authorization": "Bearer k"}
CLIENT_HEADERS = "authorization, content-type, x-stainless-os, x-request-id, openai-organization, openai-project"


def gateway_for(*origins: str, engine: FakeDispatchEngine) -> Gateway:
    return Gateway(GatewayConfig(cors_origins=origins, api_keys=("k",)), engine)


@pytest.fixture
async def page(engine: FakeDispatchEngine) -> AsyncIterator[httpx.AsyncClient]:
    """A browser's requests from PAGE, which is allowed."""
    async with client_of(gateway_for(PAGE, "http://localhost:3000", engine=engine)) as client:
        client.headers["origin"] = PAGE
        yield client


def preflight(method: str = "POST", headers: str = CLIENT_HEADERS) -> dict[str, str]:
    return {"access-control-request-method": method, "access-control-request-headers": headers}


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/none"])
@pytest.mark.parametrize("method", ["GET", "POST", "DELETE"])
async def test_preflight_is_answered_without_a_key(page: httpx.AsyncClient, path: str, method: str) -> None:
    answer = await page.options(path, headers=preflight(method))
    assert answer.status_code == 200
    assert answer.headers["access-control-allow-origin"] == PAGE
    assert method in answer.headers["access-control-allow-methods"]
    allowed = {name.strip().lower() for name in answer.headers["access-control-allow-headers"].split(",")}
    assert {name.strip() for name in CLIENT_HEADERS.split(",")} <= allowed
    assert "access-control-allow-credentials" not in answer.headers


async def test_other_pages_are_refused(page: httpx.AsyncClient) -> None:
    for origin in ("https://evil.example.org", "http://chat.example.org", f"{PAGE}.evil.org", "null"):
        answer = await page.options("/v1/models", headers={**preflight(), "origin": origin})
        assert answer.status_code == 400
        assert "access-control-allow-origin" not in answer.headers
        answer = await page.get("/v1/models", headers={**KEY, "origin": origin})
        assert "access-control-allow-origin" not in answer.headers


@pytest.mark.rule("S3")
async def test_a_preflight_opens_nothing(page: httpx.AsyncClient, engine: FakeDispatchEngine) -> None:
    await page.options("/v1/chat/completions", headers=preflight())
    assert (await page.post("/v1/chat/completions", json={"messages": "x"})).status_code == 401
    assert engine.requests == []


async def test_answers_and_errors_can_be_read(
    page: httpx.AsyncClient, engine: FakeDispatchEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def status(headers: dict[str, str], **body: object) -> int:
        answer = await page.post("/v1/chat/completions", json=body, headers=headers)
        assert answer.headers["access-control-allow-origin"] == PAGE
        assert "Origin" in answer.headers["vary"]
        exposed = {name.strip() for name in answer.headers["access-control-expose-headers"].split(",")}
        assert {
            "x-request-id",
            "request-id",
            "retry-after",
            "retry-after-ms",
            "x-should-retry",
            *LIMIT_HEADERS,
            "server-timing",
        } == exposed
        return answer.status_code

    assert await status(KEY, messages="x") == 200
    assert await status(KEY, messages="x", stream=True) == 200
    assert await status(KEY, messages=5) == 400
    assert await status({}, messages="x") == 401
    engine.script = fail_with(RateLimitError())
    assert await status(KEY, messages="x") == 429

    monkeypatch.delattr(FakeDispatchEngine, "dispatch")
    assert await status(KEY, messages="x") == 500


async def test_a_draining_gateway_can_be_read(engine: FakeDispatchEngine) -> None:
    gateway = gateway_for(PAGE, engine=engine)
    async with client_of(gateway) as client:
        gateway._gate.close()
        answer = await client.post("/v1/completions", json={}, headers={**KEY, "origin": PAGE})
    assert (answer.status_code, answer.headers["access-control-allow-origin"]) == (503, PAGE)


async def test_any_page(engine: FakeDispatchEngine) -> None:
    async with client_of(gateway_for("*", engine=engine)) as client:
        asked = await client.options("/v1/models", headers={**preflight("GET"), "origin": PAGE})
        answer = await client.get("/v1/models", headers={**KEY, "origin": PAGE})
    for one in (asked, answer):
        assert (one.status_code, one.headers["access-control-allow-origin"]) == (200, "*")
        assert "access-control-allow-credentials" not in one.headers


async def test_none_unless_configured(client: httpx.AsyncClient) -> None:
    for answer in (
        await client.get("/v1/models", headers={"origin": PAGE}),
        await client.options("/v1/models", headers={**preflight("GET"), "origin": PAGE}),
    ):
        assert not any(name.startswith("access-control") for name in answer.headers)


@pytest.mark.parametrize(
    "origin",
    [
        "example.org",
        "https://",
        "https://example.org/",
        "https://example.org/app",
        "https://user@example.org",
        "https://example.org?x",
        "https://*.example.org",
        "https://example.org:x",
        "https://example.org:443",
        "http://example.org:80",
        "null",
        "",
    ],
)
def test_origins_that_no_browser_sends_are_refused(origin: str) -> None:
    with pytest.raises(ValueError, match="bad CORS origin"):
        GatewayConfig(cors_origins=(origin,))


def test_origins_are_written_as_browsers_do() -> None:
    given = ("HTTPS://Example.org", "http://localhost:5173", "http://[::1]:8000", "tauri://localhost", "*")
    expected = ("https://example.org", "http://localhost:5173", "http://[::1]:8000", "tauri://localhost", "*")
    assert GatewayConfig(cors_origins=given).cors_origins == expected
    with pytest.raises(ValueError, match="list of strings"):
        GatewayConfig(cors_origins="https://example.org")  # type: ignore[arg-type]
