"""Requests that are cancelled from another connection."""

from __future__ import annotations

import asyncio
import contextlib
import json
import urllib.parse
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from tests.entrypoints.conftest import client_of
from tests.entrypoints.fake_dispatch_engine import FakeDispatchEngine, never_end
from tests.entrypoints.test_admission import busy, is_refused
from vfastml.engine.dispatch_task import DispatchTask
from vfastml.entrypoints.admission import MAX_CANCELS, MAX_CANCELS_PER_KEY
from vfastml.entrypoints.api_server import Gateway
from vfastml.entrypoints.gateway_config import GatewayConfig
from vfastml.errors import InternalServerTooBusyError

BODIES: dict[str, dict[str, Any]] = {
    "/v1/chat/completions": {"messages": "x"},
    "/v1/completions": {"prompt": ["x", "y"]},
}
ENDED = {
    "error": {
        "message": "The request was cancelled.",
        "type": "invalid_request_error",
        "param": None,
        "code": "request_cancelled",
    }
}


async def cancel(client: httpx.AsyncClient, name: str, **headers: str) -> httpx.Response:
    return await client.post(f"/v1/requests/{urllib.parse.quote(name, safe='')}/cancel", headers=headers)


def is_unknown(answer: httpx.Response) -> bool:
    error = answer.json()["error"]
    return answer.status_code == 404 and (error["type"], error["code"]) == ("not_found_error", None)


@contextlib.asynccontextmanager
async def waiting(
    client: httpx.AsyncClient, engine: FakeDispatchEngine, path: str, headers: dict[str, str] | None = None, **more: Any
) -> AsyncIterator[asyncio.Task[httpx.Response]]:
    """A request that does not end by itself, with all that it dispatches."""
    engine.script = never_end
    expected = engine.open_requests + len(BODIES[path].get("prompt", "x"))
    call = asyncio.create_task(client.post(path, json={**BODIES[path], **more}, headers=headers))
    while engine.open_requests < expected:
        await asyncio.sleep(0)
    yield call
    call.cancel()
    await asyncio.gather(call, return_exceptions=True)


def response_id(engine: FakeDispatchEngine) -> str:
    """The id that the client of the last request sees, or is going to see."""
    prefix, number, *_ = engine.requests[-1].request_id.split("-")
    return f"{prefix}-{number}"


@pytest.mark.parametrize("path", BODIES)
@pytest.mark.parametrize("by", ["response id", "x-request-id"])
async def test_who_waits_for_the_whole_answer_is_told(
    client: httpx.AsyncClient, engine: FakeDispatchEngine, path: str, by: str
) -> None:
    async with waiting(client, engine, path, {"x-request-id": "mine.1"}) as call:
        name = response_id(engine) if by == "response id" else "mine.1"
        answer = await cancel(client, name)
        assert (answer.status_code, answer.json()) == (200, {"id": name, "cancelled": True})
        ended = await call
    assert (ended.status_code, ended.json()) == (499, ENDED)
    assert ended.headers["x-request-id"] == "mine.1"
    assert engine.open_requests == 0
    assert sorted(engine.cancelled) == sorted(request.request_id for request in engine.requests)
    assert is_unknown(await cancel(client, name))


@pytest.mark.parametrize("path", BODIES)
async def test_a_stream_ends_with_an_error_event(
    client: httpx.AsyncClient, engine: FakeDispatchEngine, path: str
) -> None:
    async with waiting(client, engine, path, stream=True) as call:
        assert (await cancel(client, response_id(engine))).status_code == 200
        ended = await call
    *_, last = ended.text.removesuffix("\n\n").split("\n\n")
    assert (ended.status_code, json.loads(last.removeprefix("data: "))) == (200, ENDED)
    assert json.loads(ended.text.split("\n\n")[0].removeprefix("data: "))["id"] == response_id(engine)
    assert ended.headers["x-request-id"].startswith("req-")


async def test_a_stream_that_has_not_begun_is_refused(client: httpx.AsyncClient, engine: FakeDispatchEngine) -> None:
    async def say_nothing(task: DispatchTask) -> None:
        await asyncio.Event().wait()

    engine.script = say_nothing
    call = asyncio.create_task(client.post("/v1/completions", json={"prompt": "x", "stream": True}))
    while not engine.open_requests:
        await asyncio.sleep(0)
    assert (await cancel(client, response_id(engine))).status_code == 200
    assert ((await call).status_code, (await call).json()) == (499, ENDED)


async def test_an_id_that_was_not_taken_names_nothing(client: httpx.AsyncClient, engine: FakeDispatchEngine) -> None:
    async with waiting(client, engine, "/v1/completions", {"x-request-id": "not / acceptable"}):
        assert is_unknown(await cancel(client, "not / acceptable"))
        assert engine.open_requests == 2


async def test_all_that_have_the_same_name_end(client: httpx.AsyncClient, engine: FakeDispatchEngine) -> None:
    named, other = {"x-request-id": "shared"}, {"x-request-id": "other"}
    chat, completions = BODIES
    async with (
        waiting(client, engine, chat, named) as first,
        waiting(client, engine, completions, named) as second,
        waiting(client, engine, chat, other),
    ):
        assert (await cancel(client, "shared")).status_code == 200
        assert [(await call).status_code for call in (first, second)] == [499, 499]
        assert engine.open_requests == 1


@pytest.mark.parametrize(
    "name",
    ["x", "chatcmpl-", "..", "a b", "x" * 65, "x" * 20_000, "\x00", "\r\nx: y", "日本", "%s%n", "a/b", "'\"<>", "*"],
)
async def test_what_nobody_has_is_not_found_and_not_shown(
    client: httpx.AsyncClient, engine: FakeDispatchEngine, name: str
) -> None:
    async with waiting(client, engine, "/v1/chat/completions"):
        answer = await cancel(client, name)
        assert is_unknown(answer)
        assert name not in answer.json()["error"]["message"] or len(name) == 1
        assert engine.open_requests == 1


async def test_what_has_ended_is_not_found(client: httpx.AsyncClient) -> None:
    answer = await client.post("/v1/completions", json={"prompt": "x"}, headers={"x-request-id": "mine"})
    for name in ("mine", answer.json()["id"]):
        assert is_unknown(await cancel(client, name))


@pytest.mark.rule("S11")
async def test_keys_do_not_reach_each_others_requests(engine: FakeDispatchEngine) -> None:
    keys = [{"authorization": f"Bearer {key}"} for key in ("first", "second")]
    async with client_of(Gateway(GatewayConfig(api_keys=("first", "second")), engine)) as client:
        path = "/v1/chat/completions"
        async with waiting(client, engine, path, {**keys[0], "x-request-id": "mine"}) as call:
            names = ("mine", response_id(engine))
            for name in names:
                assert (await cancel(client, name)).status_code == 401
                assert is_unknown(await cancel(client, name, **keys[1]))
            assert engine.open_requests == 1
            async with waiting(client, engine, path, {**keys[1], "x-request-id": "mine"}):
                assert (await cancel(client, "mine", **keys[0])).status_code == 200
                assert (await call).status_code == 499
                assert engine.open_requests == 1


async def test_a_server_that_does_not_answer_makes_it_a_503(
    client: httpx.AsyncClient, engine: FakeDispatchEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def cannot_say(name: str) -> bool:
        raise InternalServerTooBusyError("Not every model server has said whether it has that request.")

    monkeypatch.setattr(engine, "cancel_by_name", cannot_say)
    answer = await cancel(client, "x")
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")


async def test_it_is_let_in_where_nothing_else_is() -> None:
    async with busy(max_open=1, max_open_per_key=1, api_keys=("k",)) as service:
        await service.hold(1, "k")
        assert (await service.post("k")).status_code == 429
        assert is_unknown(await cancel(service.client, "x", authorization="Bearer k"))
        assert (await service.client.get("/v1/requests/x/cancel", headers={"x-api-key": "k"})).status_code == 429
        for look_alike in (
            "/v1/requests/x/cancel/",
            "/v1/requests/cancel",
            "/v1/requests//cancel",
            "/x/requests/x/cancel",
            "/v1/responses/x",
            "/v1/responses/x/cancel/",
        ):
            answer = await service.client.post(look_alike, headers={"authorization": "Bearer k"})
            assert answer.status_code == 429
        assert await service.let_go() == [200]


class Slow:
    """Model servers that do not say whether they have a request until they are told to."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, engine: FakeDispatchEngine) -> None:
        self.asked = 0
        self.go = asyncio.Event()
        monkeypatch.setattr(engine, "cancel_by_name", self._cancel_by_name)

    async def _cancel_by_name(self, name: str) -> bool:
        self.asked += 1
        await self.go.wait()
        return True

    async def flood(self, client: httpx.AsyncClient, *keys: str, each: int) -> list[asyncio.Task[httpx.Response]]:
        """So many cancels with each key, all under way or refused."""
        calls = [asyncio.create_task(cancel(client, "x", **{"x-api-key": key})) for key in keys for _ in range(each)]
        while self.asked + sum(call.done() for call in calls) < len(calls):
            await asyncio.sleep(0)
        return calls


async def test_no_key_has_more_than_so_many_under_way(
    engine: FakeDispatchEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    servers = Slow(monkeypatch, engine)
    async with client_of(Gateway(GatewayConfig(api_keys=("one", "two")), engine)) as client:
        calls = await servers.flood(client, "one", each=MAX_CANCELS_PER_KEY + 9)
        assert servers.asked == MAX_CANCELS_PER_KEY
        other = asyncio.create_task(cancel(client, "x", **{"x-api-key": "two"}))
        servers.go.set()
        assert sum(is_refused(answer) for answer in await asyncio.gather(*calls)) == 9
        assert (await other).status_code == 200
        assert (await cancel(client, "x", **{"x-api-key": "one"})).status_code == 200


async def test_no_more_than_so_many_are_under_way(engine: FakeDispatchEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    servers = Slow(monkeypatch, engine)
    keys = [f"key-{number}" for number in range(MAX_CANCELS // MAX_CANCELS_PER_KEY + 1)]
    async with client_of(Gateway(GatewayConfig(api_keys=tuple(keys)), engine)) as client:
        calls = await servers.flood(client, *keys, each=MAX_CANCELS_PER_KEY)
        assert servers.asked == MAX_CANCELS
        servers.go.set()
        assert sum(is_refused(answer) for answer in await asyncio.gather(*calls)) == MAX_CANCELS_PER_KEY
