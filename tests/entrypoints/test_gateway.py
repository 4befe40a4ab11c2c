"""FastMLServer: a user's routes, its options, and what it may not import."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from typing import Any

import httpx
import pytest
from starlette.middleware.base import RequestResponseEndpoint
from starlette.requests import Request
from starlette.responses import Response

import vfastml.utils.api as api_utils
from prebuilt_apps.openai.api_interfaces import ChatCompletionsRequest
from tests.engine.fake_server import FakeServer
from tests.entrypoints.conftest import client_of
from tests.entrypoints.fake_dispatch_engine import FakeDispatchEngine, fail_with
from vfastml.engine.dispatch_replies import Accepted, Delta, Finished, Status
from vfastml.engine.dispatch_requests import ImageToImageReq, OneShotReq, TextGenerationReq, TokenizeReq, WorkReq
from vfastml.engine.dispatch_task import DispatchRequestResult, DispatchTask
from vfastml.entrypoints.api_server import Gateway
from vfastml.entrypoints.gateway_config import GatewayConfig
from vfastml.errors import RateLimitError


@pytest.fixture
def gateway(engine: FakeDispatchEngine) -> Gateway:
    """The example of the README, word for word but for the names."""
    ml_server = Gateway(dispatch_engine=engine)

    @ml_server.app.post(path="/v1/chat/completions")
    async def chat_completions(request: ChatCompletionsRequest) -> Response:
        request_id = api_utils.gen_request_id("completions")
        dispatch_task = ml_server.dispatch_engine.dispatch(
            TextGenerationReq(
                request_id=request_id, model_uri="selected", model_adapter_uri=None, messages=request.messages
            )
        )
        task_result = await dispatch_task.get_result()
        return api_utils.build_json_response(request_id, task_result)

    return ml_server


async def test_a_users_route_wins(gateway: Gateway, engine: FakeDispatchEngine) -> None:
    messages = [{"role": "user", "content": "hi", "name": "ann"}]
    async with client_of(gateway) as client:
        body = (await client.post("/v1/chat/completions", json={"messages": messages})).json()
        assert (await client.post("/v1/completions", json={"prompt": "x"})).status_code == 200
    assert body["id"].startswith("completions-")
    assert body["choices"][0]["message"]["content"] == "Hello world"
    mine = engine.requests[0]
    assert isinstance(mine, TextGenerationReq)
    assert (mine.model_uri, mine.messages) == ("selected", messages)


async def test_messages_are_dicts_with_attributes(engine: FakeDispatchEngine) -> None:
    ml_server = Gateway(dispatch_engine=engine)
    seen: list[Any] = []

    @ml_server.app.post("/v1/chat/completions")
    async def chat_completions(request: ChatCompletionsRequest) -> None:
        seen.extend((msg["role"], msg.role, msg.content) for msg in request.messages)  # type: ignore[attr-defined]

    messages = [{"role": "user", "content": "hi"}, {"role": "assistant", "tool_calls": []}]
    async with client_of(ml_server) as client:
        for sent in (messages, "hello"):
            assert (await client.post("/v1/chat/completions", json={"messages": sent})).status_code == 200
    assert seen == [("user", "user", "hi"), ("assistant", "assistant", None), ("user", "user", "hello")]


@pytest.mark.parametrize("path", ["/v1/models", "/v1/models/tiny", "/livez", "/health", "/version"])
async def test_plain_functions_win_too(engine: FakeDispatchEngine, path: str) -> None:
    ml_server = Gateway(dispatch_engine=engine)

    @ml_server.app.get(path)
    def mine() -> dict[str, bool]:
        return {"mine": True}

    async with client_of(ml_server) as client:
        assert (await client.get(path)).json() == {"mine": True}


async def test_a_users_layer_is_inside_of_ours(engine: FakeDispatchEngine) -> None:
    ml_server = Gateway(GatewayConfig(api_keys=("k",)), engine)
    reached: list[str] = []

    @ml_server.app.middleware("http")
    async def note(request: Request, call_next: RequestResponseEndpoint) -> Response:
        reached.append(request.url.path)
        return await call_next(request)

    async with client_of(ml_server) as client:
        assert (await client.get("/version")).status_code == 401
        assert reached == []
        assert (await client.get("/version", headers={"x-api-key": "k"})).status_code == 200
    assert reached == ["/version"]


async def test_a_users_route_refuses_like_the_built_in_one(gateway: Gateway, engine: FakeDispatchEngine) -> None:
    headers = {"content-type": "application/json"}
    refused: list[tuple[bytes, str | None]] = [
        (b'{"messages": "x", "temperature": NaN}', "temperature"),
        (b'{"messages": "x", "temperature": "1"}', "temperature"),
        (b'{"messages": "x", "tools": [{}]}', "tools"),
        (b'{"messages": [{"role": "x"}]}', "messages[0].role"),
        (b'{"messages": [], "n": 1}', "messages"),
        (b'{"messages": "\\ud800"}', None),
    ]
    async with client_of(gateway) as client:
        for content, param in refused:
            response = await client.post("/v1/chat/completions", content=content, headers=headers)
            assert (response.status_code, response.json()["error"]["param"]) == (400, param)


async def test_a_users_route_shows_errors_of_the_engine(gateway: Gateway, engine: FakeDispatchEngine) -> None:
    engine.script = fail_with(RateLimitError("slow down", retry_after_s=4))
    async with client_of(gateway) as client:
        response = await client.post("/v1/chat/completions", json={"messages": "x"})
    assert (response.status_code, response.headers["retry-after"]) == (429, "4")
    assert response.json()["error"]["message"] == "slow down"


async def test_documents_list_the_users_route_once(gateway: Gateway) -> None:
    async with client_of(gateway) as client:
        document = (await client.get("/openapi.json")).json()
    assert document["paths"]["/v1/chat/completions"]["post"]["summary"] == "Chat Completions"
    assert document["paths"]["/v1/completions"]["post"]["summary"] == "Complete a text"


async def test_build_is_done_once(gateway: Gateway) -> None:
    assert len(gateway.build().routes) == len(gateway.build().routes)
    assert gateway.build() is gateway.app


@pytest.mark.parametrize(
    ("request_", "expected"),
    [
        (TextGenerationReq(request_id="a", prompt="x"), {"object": "text_completion"}),
        (TextGenerationReq(request_id="a", messages="x"), {"object": "chat.completion"}),
        (TokenizeReq(request_id="a", prompt="x"), {"count": 3, "tokens": [1, 2, 3]}),
        (OneShotReq(request_id="a", inputs=b"x"), {"output": {"score": 0.5}}),
    ],
)
async def test_json_responses_of_every_kind(
    engine: FakeDispatchEngine, request_: WorkReq, expected: dict[str, Any]
) -> None:
    response = api_utils.build_json_response("mine", await engine.dispatch(request_).get_result())
    assert expected.items() <= json.loads(bytes(response.body)).items()


def test_images_leave_as_base64() -> None:
    request = ImageToImageReq(request_id="a", images=[b"x"])
    response = api_utils.build_json_response("a", DispatchRequestResult(request, "m", result={"images": [b"\x00\xff"]}))
    assert json.loads(bytes(response.body)) == {"output": {"images": ["AP8="]}}


def test_request_ids_are_unique() -> None:
    ids = {api_utils.gen_request_id("x") for _ in range(1000)}
    assert len(ids) == 1000
    assert all(request_id.startswith("x-") for request_id in ids)


def test_unknown_options_are_refused_by_name() -> None:
    with pytest.raises(TypeError, match=r"'colour', 'size'.*log_level"):
        Gateway().configure(colour="red", size=2)
    with pytest.raises(TypeError, match="'colour'"):
        Gateway().run(colour="red")  # type: ignore[call-arg]


def test_there_is_one_kind_of_dispatch_engine() -> None:
    gateway = Gateway()
    gateway.configure(log_level="warn", dispatch_engine="async")
    assert gateway._config.log_level == "warning"
    with pytest.raises(ValueError, match="only 'async'"):
        gateway.configure(dispatch_engine="sync")


@pytest.mark.parametrize(
    "options",
    [
        {"log_level": "loud"},
        {"api_keys": "one-string"},
        {"api_keys": [" "]},
        {"model_servers": "tcp://127.0.0.1:6500"},
        {"model_servers": []},
        {"model_servers": ["http://x"]},
        {"access_log": "some"},
        {"cors_origins": "https://example.org"},
        {"cors_origins": ["example.org"]},
        {"root_path": "llm"},
        {"keep_alive_s": 0},
        {"max_step_s": 0},
        {"max_body_bytes": -1},
        {"drain_timeout_s": -1},
    ],
)
def test_bad_options_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"\w+ \w+"):
        Gateway().configure(**options)


@pytest.mark.parametrize(("max_step_s", "state"), [(5.0, "hung"), (60.0, "live")])
async def test_how_long_a_step_may_take_is_an_option(max_step_s: float, state: str) -> None:
    server = FakeServer()
    gateway = Gateway()
    gateway.configure(model_servers=[server.endpoint], max_step_s=max_step_s)
    engine = gateway.dispatch_engine
    await engine.start()
    await asyncio.wait_for(engine.wait_ready(), 5)
    server.broadcast(Status("ready", step_age_s=40.0))
    await asyncio.sleep(1.5)  # it is looked for each second
    assert engine.servers()[0].state == state
    await engine.close()
    await server.stop()


async def test_options_come_before_use() -> None:
    # With a real engine made by the gateway: one that is given is there from the start.
    used, built, served = Gateway(), Gateway(), Gateway()
    assert used.dispatch_engine is used.dispatch_engine
    built.build()
    async with httpx.AsyncClient(transport=httpx.ASGITransport(served.app), base_url="http://gateway") as client:
        await client.get("/livez")
    for gateway in (used, built, served):
        with pytest.raises(RuntimeError, match="before"):
            gateway.configure(log_level="debug")


async def test_the_app_is_complete_whatever_serves_it(engine: FakeDispatchEngine) -> None:
    gateway = Gateway(GatewayConfig(api_keys=("k",), max_body_bytes=100), engine)

    @gateway.app.get("/version")
    async def mine() -> str:
        return "mine"

    key = {"authorization": "Bearer k"}
    async with httpx.AsyncClient(transport=httpx.ASGITransport(gateway.app), base_url="http://gateway") as client:
        assert (await client.get("/version")).status_code == 401
        answer = await client.get("/version", headers=key)
        assert (answer.json(), "x-request-id" in answer.headers) == ("mine", True)
        assert (await client.post("/v1/completions", json={"prompt": "x"}, headers=key)).status_code == 200
        assert (await client.post("/v1/completions", json={"prompt": "x" * 100}, headers=key)).status_code == 413
        gateway._gate.close()
        assert (await client.get("/version", headers=key)).status_code == 503


async def test_what_cannot_be_completed_is_not_served_half(engine: FakeDispatchEngine) -> None:
    gateway = Gateway(GatewayConfig(api_keys=("k",)), engine)

    @gateway.app.get("/mine")
    async def mine() -> str:
        return "mine"

    gateway._add_routes = lambda: 1 / 0  # type: ignore[method-assign,assignment]
    async with httpx.AsyncClient(transport=httpx.ASGITransport(gateway.app), base_url="http://gateway") as client:
        for _ in range(2):
            with pytest.raises(ZeroDivisionError):
                await client.get("/mine")


async def test_options_reach_the_engine() -> None:
    gateway = Gateway()
    gateway.configure(model_servers=["tcp://127.0.0.1:7777"], max_held=0)
    assert [server.endpoint for server in gateway.dispatch_engine.servers()] == ["tcp://127.0.0.1:7777"]


async def test_the_engine_runs_as_long_as_the_app(engine: FakeDispatchEngine) -> None:
    app = Gateway(dispatch_engine=engine).build()
    async with app.router.lifespan_context(app):
        assert engine.running
    assert not engine.running


async def test_a_finished_stream_leaves_nothing_behind(engine: FakeDispatchEngine) -> None:
    async def script(task: DispatchTask) -> None:
        task.add_accepted(Accepted(task.request_id, 1))
        task.add_delta(Delta(task.request_id, 0, "x", None, "stop"))
        task.finish(Finished(task.request_id))

    engine.script = script
    before = asyncio.all_tasks()
    async with client_of(Gateway(GatewayConfig(), engine)) as client:
        await client.post("/v1/chat/completions", json={"messages": "x", "stream": True})
        await asyncio.sleep(0)
    assert asyncio.all_tasks() == before
    assert engine.cancelled == []


@pytest.mark.parametrize("module", ["vfastml.entrypoints.api_server", "prebuilt_apps.openai.api_server"])
def test_no_torch_in_a_gateway(module: str) -> None:
    program = f"import sys, {module}; print([m for m in ('torch', 'transformers') if m in sys.modules])"
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True)
    assert result.stdout.strip() == "[]"


def test_the_public_name() -> None:
    import vfastml
    from vfastml.entrypoints.api_server import FastMLServer

    assert vfastml.FastMLServer is FastMLServer
    assert isinstance(FastMLServer, Gateway)
