"""What keys' limits do to requests over HTTP, with a real dispatch engine and a model server without a model."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.engine.fake_server import FakeServer, first_word, until
from tests.entrypoints.keys.key_files import bearer, write_keys
from vfastml.engine.dispatch_replies import Delta, Finished, StepReply, Usage
from vfastml.engine.dispatch_requests import TextGenerationReq, WorkReq
from vfastml.entrypoints.api_server import Gateway
from vfastml.entrypoints.gateway_config import GatewayConfig
from vfastml.entrypoints.keys.balances import Balances
from vfastml.entrypoints.keys.key_limits import KeyLimits, written_duration


class Clock:
    def __init__(self) -> None:
        self.now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


class Limited:
    """A gateway whose keys are those of a file; time stands still unless a test moves it."""

    def __init__(self, gateway: Gateway, server: FakeServer, clock: Clock) -> None:
        self.gateway = gateway
        self.server = server
        self.clock = clock
        transport = httpx.ASGITransport(gateway.build(), raise_app_exceptions=False)
        self.client = httpx.AsyncClient(transport=transport, base_url="http://gateway")

    async def complete(self, key: str, prompt: str = "one two", path: str = "/v1/completions", **more: Any) -> Any:
        return await self.client.post(path, json={"prompt": prompt, **more}, headers=bearer(key))

    async def get(self, key: str, path: str) -> httpx.Response:
        return await self.client.get(path, headers=bearer(key))


@contextlib.asynccontextmanager
async def limited(
    tmp_path: Path, keys: dict[str, dict[str, Any]], *, models: tuple[str, ...] = ("m",), **options: Any
) -> AsyncIterator[Limited]:
    file, clock = tmp_path / "keys.toml", Clock()
    write_keys(file, keys)
    server = FakeServer(models=models, answer=options.pop("answer", counted))
    gateway = Gateway(GatewayConfig(model_servers=(server.endpoint,), api_key_file=str(file), **options))
    oversight = gateway._oversight
    oversight.limits = KeyLimits(oversight.keys, Balances(clock=clock), gateway._config.max_open_per_key)
    service = Limited(gateway, server, clock)
    async with gateway.app.router.lifespan_context(gateway.app), service.client:
        await gateway.dispatch_engine.wait_ready()
        yield service
    await server.stop()


def counted(server: FakeServer, request: WorkReq) -> None:
    """Ten prompt tokens, and for each word of the prompt a delta of three."""
    assert isinstance(request, TextGenerationReq)
    words = (request.prompt or "").split()
    server.accept(request.request_id, 10)
    deltas = [Delta(request.request_id, 0, word, num_tokens=3) for word in words]
    end = Delta(request.request_id, 0, "", finish_reason="stop")
    usage = Usage(10, 3 * len(words))
    server.reply(StepReply([*deltas, end], [Finished(request.request_id, usage)]), to=request.request_id)


def of_limits(answer: httpx.Response) -> dict[str, str]:
    head = "x-ratelimit-"
    return {name.removeprefix(head): value for name, value in answer.headers.items() if name.startswith(head)}


async def test_requests_per_minute(tmp_path: Path) -> None:
    async with limited(tmp_path, {"ann": {"requests_per_minute": 3}, "bob": {}}) as service:
        for left, reset in ((2, "20s"), (1, "40s"), (0, "1m0s")):
            answer = await service.complete("ann")
            assert answer.status_code == 200
            expected = {"limit-requests": "3", "remaining-requests": str(left), "reset-requests": reset}
            assert of_limits(answer) == expected
        refused = await service.complete("ann")
        error = refused.json()["error"]
        assert (refused.status_code, error["type"], error["code"]) == (429, "rate_limit_error", "rate_limit_exceeded")
        assert (refused.headers["retry-after"], refused.headers["retry-after-ms"]) == ("20", "20000")
        assert of_limits(refused)["remaining-requests"] == "0"
        assert of_limits(await service.complete("bob")) == {}
        service.clock.now_s += 19.999
        refused = await service.complete("ann")
        assert (refused.status_code, refused.headers["retry-after-ms"]) == (429, "1")
        service.clock.now_s += 0.001
        assert (await service.complete("ann")).status_code == 200
        assert len(service.server.requests) == 5


async def test_tokens_per_minute(tmp_path: Path) -> None:
    async with limited(tmp_path, {"ann": {"tokens_per_minute": 20}}) as service:
        assert of_limits(await service.complete("ann")) == {  # known only when it has begun
            "limit-tokens": "20",
            "remaining-tokens": "4",
            "reset-tokens": "48s",
        }
        # A little is there: it is let in, and what it uses beyond is owed.
        assert (await service.complete("ann", "a b c d e")).status_code == 200
        refused = await service.complete("ann")
        assert refused.status_code == 429
        assert of_limits(refused) == {"limit-tokens": "20", "remaining-tokens": "0", "reset-tokens": "2m3s"}
        assert refused.headers["retry-after-ms"] == "63001", "20 - 16 - 25 = -21 tokens, at one in three seconds"
        assert (await service.get("ann", "/v1/models")).status_code == 200, "it uses no tokens"
        service.clock.now_s += 63.001
        assert (await service.complete("ann")).status_code == 200


async def test_the_final_usage_settles_what_was_charged(tmp_path: Path) -> None:
    def surprising(server: FakeServer, request: WorkReq) -> None:
        server.accept(request.request_id, 10)
        deltas = [
            Delta(request.request_id, 0, "x", num_tokens=5),
            Delta(request.request_id, 0, "", finish_reason="stop"),
        ]
        server.reply(StepReply(deltas, [Finished(request.request_id, Usage(8, 2))]), to=request.request_id)

    async with limited(tmp_path, {"ann": {"tokens_per_minute": 100}}, answer=surprising) as service:
        assert of_limits(await service.complete("ann"))["remaining-tokens"] == "90"


async def test_what_is_cut_short_has_cost_what_came(tmp_path: Path) -> None:
    def cut(server: FakeServer, request: WorkReq) -> None:
        server.accept(request.request_id, 10)
        server.reply(StepReply([Delta(request.request_id, 0, "x", num_tokens=5)]), to=request.request_id)

    async with limited(tmp_path, {"ann": {"tokens_per_minute": 100}}, answer=cut) as service:
        answer = await service.complete("ann", deadline_s=0.3)
        assert (answer.status_code, of_limits(answer)["remaining-tokens"]) == (504, "85")


async def test_a_refusal_counts_nothing(tmp_path: Path) -> None:
    keys = {"ann": {"requests_per_minute": 10, "tokens_per_minute": 10}}
    async with limited(tmp_path, keys) as service:
        await service.complete("ann")
        refused = await service.complete("ann")
        assert (refused.status_code, of_limits(refused)["remaining-requests"]) == (429, "9")
        assert len(service.server.requests) == 1


async def test_every_answer_tells_what_is_left(tmp_path: Path) -> None:
    async with limited(tmp_path, {"ann": {"requests_per_minute": 100}}) as service:
        answers = [
            await service.get("ann", "/no/such/route"),
            await service.complete("ann", max_tokens=-1),
            await service.complete("ann", model="other"),
            await service.client.post("/v1/completions", content=b"x" * (17 << 20), headers=bearer("ann")),
            await service.client.get("/v1/models", headers={**bearer("ann"), "x-request-timeout": "never"}),
        ]
        assert [answer.status_code for answer in answers] == [404, 400, 404, 413, 400]
        assert [of_limits(answer)["limit-requests"] for answer in answers] == ["100"] * 5
        assert of_limits(await service.get("ann", "/livez")) == {}
        assert of_limits(await service.get("nobody", "/v1/models")) == {}


async def test_cancels_have_no_rate(tmp_path: Path) -> None:
    async with limited(tmp_path, {"ann": {"requests_per_minute": 1}}) as service:
        await service.complete("ann")
        answer = await service.client.post("/v1/requests/none/cancel", headers=bearer("ann"))
        assert answer.status_code == 404


async def test_requests_at_a_time_of_each_key(tmp_path: Path) -> None:
    keys: dict[str, dict[str, Any]] = {"ann": {"max_open": 1}, "bob": {}}
    async with limited(tmp_path, keys, answer=first_word, max_open_per_key=2) as service:
        for key, most in (("ann", 1), ("bob", 2)):
            before = len(service.server.requests)
            open_ones = [asyncio.create_task(service.complete(key)) for _ in range(most)]
            await until(lambda: len(service.server.requests) == before + most)  # noqa: B023
            refused = await service.complete(key)
            assert (refused.status_code, refused.json()["error"]["code"]) == (429, "rate_limit_exceeded")
            for task in open_ones:
                task.cancel()
            await asyncio.gather(*open_ones, return_exceptions=True)
        assert len(service.server.requests) == 3


async def test_a_change_of_limits_holds_at_once(tmp_path: Path) -> None:
    async with limited(tmp_path, {"ann": {"requests_per_minute": 1}}) as service:
        assert [(await service.complete("ann")).status_code for _ in range(2)] == [200, 429]
        write_keys(tmp_path / "keys.toml", {"ann": {}})
        service.gateway._oversight.keys.reload()
        assert (await service.complete("ann")).status_code == 200


async def test_models_that_are_not_the_keys(tmp_path: Path) -> None:
    keys: dict[str, dict[str, Any]] = {"ann": {"models": ["m"]}, "bob": {"models": ["org/m"]}, "carl": {}}
    async with limited(tmp_path, keys, models=("m", "n")) as service:
        for key in ("ann", "bob"):
            assert (await service.complete(key, model="m")).status_code == 200
            assert (await service.complete(key, model="org/m")).status_code == 200
            for name in ("n", "org/n"):
                refused = await service.complete(key, model=name)
                error = refused.json()["error"]
                assert (refused.status_code, error["type"]) == (403, "permission_error")
                assert (error["code"], error["param"]) == ("model_not_allowed", "model")
            assert (await service.complete(key, model="none")).status_code == 404
            shown = (await service.get(key, "/v1/models")).json()["data"]
            assert [model["id"] for model in shown] == ["m"]
            assert (await service.get(key, "/v1/models/m")).status_code == 200
            assert (await service.get(key, "/v1/models/n")).status_code == 404
            assert (await service.get(key, "/v1/models/org/n")).status_code == 404
        assert (await service.complete("carl", model="n")).status_code == 200


async def test_load_shows_the_models_of_the_key_and_who_serves_them(tmp_path: Path) -> None:
    keys: dict[str, dict[str, Any]] = {"ann": {"models": ["m"]}, "bob": {"models": ["other"]}, "carl": {}}
    async with limited(tmp_path, keys, models=("m", "n")) as service:
        assert (await service.complete("carl", model="m")).status_code == 200
        shown = {key: (await service.get(key, "/load")).json()["servers"] for key in keys}
        named = {key: [[model["id"] for model in one["models"]] for one in servers] for key, servers in shown.items()}
        assert named == {"ann": [["m"]], "bob": [], "carl": [["m", "n"]]}
        assert len((await service.get("carl", "/v1/models")).json()["data"]) == 2


async def test_a_model_that_is_not_named_is_not_the_keys_either(tmp_path: Path) -> None:
    async with limited(tmp_path, {"ann": {"models": ["other"]}}) as service:
        assert (await service.complete("ann")).status_code == 403
        for path in ("/tokenize", "/apply-template", "/v1/chat/completions", "/v1/responses", "/detokenize"):
            body = {"input": "hi"} if path == "/v1/responses" else {"messages": [{"role": "user", "content": "hi"}]}
            body = {"tokens": [1]} if path == "/detokenize" else body
            answer = await service.client.post(path, json=body, headers=bearer("ann"))
            assert (answer.status_code, answer.json()["error"]["code"]) == (403, "model_not_allowed")
        body = {"max_tokens": 5, "messages": [{"role": "user", "content": "hi"}]}
        answer = await service.client.post("/v1/messages", json=body, headers=bearer("ann"))
        assert (answer.status_code, answer.json()["error"]["type"]) == (403, "permission_error")
        assert service.server.requests == []


async def test_a_request_that_waits_for_its_model_is_checked_too(tmp_path: Path) -> None:
    async with limited(tmp_path, {"ann": {"models": ["other"]}}) as service:
        late = FakeServer(loading=True)
        gateway = Gateway(
            GatewayConfig(model_servers=(late.endpoint,), api_key_file=str(tmp_path / "keys.toml")),
        )
        other = Limited(gateway, late, service.clock)
        async with gateway.app.router.lifespan_context(gateway.app), other.client, _until_held(other) as waiting:
            late.become_ready()
            assert (await waiting).status_code == 403
        await late.stop()


async def test_a_key_that_is_revoked_while_its_body_comes(tmp_path: Path) -> None:
    async with limited(tmp_path, {"ann": {}}) as service:

        async def body() -> AsyncIterator[bytes]:
            write_keys(tmp_path / "keys.toml", {})
            service.gateway._oversight.keys.reload()
            yield b'{"prompt": "x"}'

        headers = {**bearer("ann"), "content-type": "application/json"}
        answer = await service.client.post("/v1/completions", content=body(), headers=headers)
        assert (answer.status_code, answer.json()["error"]["message"]) == (401, "The API key has been revoked.")
        assert service.server.requests == []


async def test_nothing_is_remembered_of_requests_that_have_ended(tmp_path: Path) -> None:
    async with limited(tmp_path, {"ann": {"tokens_per_minute": 1000}}) as service:
        await service.complete("ann")
        assert service.gateway._oversight.limits._charged == {}


@pytest.mark.parametrize(
    ("seconds", "written"),
    [
        (0, "0s"),
        (0.0001, "1ms"),
        (0.12, "120ms"),
        (1, "1s"),
        (1.2, "1.2s"),
        (8.6401, "8.641s"),
        (360, "6m0s"),
        (59.9999, "1m0s"),
        (3725.5, "1h2m5.5s"),
    ],
)
def test_durations_as_openai_writes_them(seconds: float, written: str) -> None:
    assert written_duration(seconds) == written


@contextlib.asynccontextmanager
async def _until_held(service: Limited) -> AsyncIterator[Any]:
    task = asyncio.ensure_future(service.complete("ann"))
    await until(lambda: service.gateway.dispatch_engine.held_requests == 1)
    yield task
