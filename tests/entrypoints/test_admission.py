"""How many requests a gateway has open at a time."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

import httpx
import pytest
from starlette.types import Message, Scope

from tests.entrypoints.conftest import client_of
from tests.entrypoints.fake_dispatch_engine import FakeDispatchEngine
from vfastml.entrypoints.api_server import Gateway
from vfastml.entrypoints.auth import FREE_PATHS
from vfastml.entrypoints.gateway_config import GatewayConfig


class Busy:
    """A gateway with a route that holds its requests until it is told to let them go."""

    def __init__(self, **options: object) -> None:
        self.gateway = Gateway(GatewayConfig(**options), FakeDispatchEngine())  # type: ignore[arg-type]
        self.held = 0
        self._go = asyncio.Event()
        self.gateway.app.post("/hold")(self._hold)
        self.client = client_of(self.gateway)
        self._tasks: list[asyncio.Task[httpx.Response]] = []

    async def _hold(self) -> str:
        self.held += 1
        await self._go.wait()
        return "done"

    async def hold(self, count: int, key: str = "") -> None:
        """So many more requests are open."""
        until = self.held + count
        self._tasks += [asyncio.create_task(self.post(key)) for _ in range(count)]
        while self.held < until:
            await asyncio.sleep(0)

    async def post(self, key: str = "") -> httpx.Response:
        return await self.client.post("/hold", json={}, headers={"authorization": f"Bearer {key}"} if key else {})

    async def let_go(self) -> list[int]:
        """The statuses of all that was held; none is held from now on."""
        self._go.set()
        return [(await task).status_code for task in self._tasks]


@contextlib.asynccontextmanager
async def busy(**options: object) -> AsyncIterator[Busy]:
    made = Busy(**options)
    async with made.client:
        yield made


def is_refused(answer: httpx.Response) -> bool:
    if answer.status_code != 429:
        return False
    error = answer.json()["error"]
    assert (error["type"], error["code"]) == ("rate_limit_error", "rate_limit_exceeded")
    assert answer.headers["retry-after"] == "1"
    return True


async def test_no_more_than_so_many_are_open() -> None:
    async with busy(max_open=3) as service:
        await service.hold(3)
        assert is_refused(await service.post())
        assert is_refused(await service.client.get("/v1/models"))
        assert is_refused(await service.client.get("/no/such/route"))
        assert await service.let_go() == [200] * 3
        assert (await service.post()).status_code == 200


async def test_key_that_floods_leaves_room_for_others() -> None:
    async with busy(max_open=8, api_keys=("busy", "quiet")) as service:
        await service.hold(6, "busy")
        assert is_refused(refused := await service.post("busy"))
        assert "room for others" in refused.json()["error"]["message"]
        await service.hold(2, "quiet")
        assert await service.let_go() == [200] * 8


async def test_probes_are_answered_all_the_same() -> None:
    async with busy(max_open=1) as service:
        await service.hold(1)
        for path in FREE_PATHS:
            assert (await service.client.get(path)).status_code == 200
        await service.let_go()


async def test_each_key_has_a_bound_of_its_own() -> None:
    async with busy(api_keys=("one", "two"), max_open=5, max_open_per_key=2) as service:
        await service.hold(2, "one")
        assert is_refused(await service.post("one"))
        await service.hold(2, "two")
        assert is_refused(await service.post("two"))
        assert (await service.client.get("/v1/models", headers={"x-api-key": "one"})).status_code == 429
        assert await service.let_go() == [200] * 4
        assert (await service.post("one")).status_code == 200


async def test_the_bound_of_the_gateway_holds_for_all_keys_together() -> None:
    async with busy(api_keys=("one", "two"), max_open=3, max_open_per_key=2) as service:
        await service.hold(2, "one")
        await service.hold(1, "two")
        assert is_refused(await service.post("two"))
        await service.let_go()


@pytest.mark.rule("S3")
async def test_a_wrong_key_takes_no_place_and_learns_nothing() -> None:
    async with busy(api_keys=("one",), max_open=1) as service:
        assert (await service.post("wrong")).status_code == 401
        await service.hold(1, "one")
        assert (await service.post("wrong")).status_code == 401
        await service.let_go()


async def test_without_keys_there_is_no_bound_for_one() -> None:
    async with busy(max_open_per_key=1) as service:
        await service.hold(5)
        assert await service.let_go() == [200] * 5


async def test_whatever_ends_a_request_frees_its_place() -> None:
    async with busy(max_open=1) as service:
        service.gateway.app.get("/breaks")(lambda: 1 / 0)
        assert (await service.client.get("/breaks")).status_code == 500
        leaving = asyncio.create_task(service.post())
        while not service.held:
            await asyncio.sleep(0)
        leaving.cancel()
        with pytest.raises(asyncio.CancelledError):
            await leaving
        await service.hold(1)
        assert is_refused(await service.post())
        await service.let_go()


@pytest.mark.rule("S4")
async def test_a_refused_body_is_not_read() -> None:
    async with busy(max_open=1) as service:
        await service.hold(1)
        sent: list[Message] = []
        scope: Scope = {"type": "http", "method": "POST", "path": "/hold", "query_string": b"", "root_path": ""}
        scope |= {"headers": [(b"content-length", b"1000000")], "http_version": "1.1", "scheme": "http"}

        async def receive() -> Message:
            raise AssertionError("the body was asked for")

        async def send(message: Message) -> None:
            sent.append(message)

        await service.gateway.app(scope, receive, send)
        assert sent[0]["status"] == 429
        await service.let_go()


@pytest.mark.parametrize(("option", "value"), [("max_open", 0), ("max_open_per_key", -1)])
def test_bad_bounds_are_refused(option: str, value: int) -> None:
    with pytest.raises(ValueError, match=f"{option} must"):
        GatewayConfig(**{option: value})  # type: ignore[arg-type]
