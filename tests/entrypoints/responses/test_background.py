"""Responses that grow while nobody waits for them."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx
import pytest

from tests.entrypoints.conftest import client_of
from tests.entrypoints.fake_dispatch_engine import FakeDispatchEngine, fail_with, never_end
from tests.entrypoints.responses.event_stream import MESSAGE_DONE, URL, parsed_events, saying, told
from vfastml.engine.dispatch_replies import Accepted, Delta
from vfastml.engine.dispatch_task import DispatchTask
from vfastml.entrypoints.api_server import Gateway
from vfastml.entrypoints.gateway_config import GatewayConfig
from vfastml.entrypoints.limits import MAX_EVENT_LOG_BYTES
from vfastml.entrypoints.openai.responses import routes
from vfastml.entrypoints.openai.responses.background import BackgroundResponses
from vfastml.entrypoints.openai.responses.response_store import ResponseStore
from vfastml.errors import InvalidRequestError, RateLimitError, RequestCancelledError, ServerLostError


async def begun(client: httpx.AsyncClient, **fields: Any) -> dict[str, Any]:
    response = await client.post(URL, json={"input": "hi", "background": True, **fields})
    assert response.status_code == 200
    body: dict[str, Any] = response.json()
    assert (body["status"], body["background"], body["output"]) == ("queued", True, [])
    return body


async def status_after(client: httpx.AsyncClient, response_id: str, *passing: str) -> dict[str, Any]:
    """The first body whose status is none of these."""
    while (body := (await client.get(f"{URL}/{response_id}")).json()).get("status", "not yet") in passing:
        await asyncio.sleep(0)
    found: dict[str, Any] = body
    return found


async def test_it_is_fetched_when_it_is_there(client: httpx.AsyncClient, engine: FakeDispatchEngine) -> None:
    body = await begun(client)
    ended = await status_after(client, body["id"], "queued", "in_progress")
    assert (ended["status"], ended["output"][0]["content"][0]["text"]) == ("completed", "Hello world")
    assert (await client.post(f"{URL}/{body['id']}/cancel")).json() == ended
    assert engine.cancelled == []


async def test_what_there_is_of_it_can_be_seen_before_and_when_it_is_cancelled(
    client: httpx.AsyncClient, engine: FakeDispatchEngine
) -> None:
    engine.script = never_end
    body = await begun(client)
    growing = await status_after(client, body["id"], "queued")
    assert (growing["status"], growing["output"][0]["content"][0]["text"]) == ("in_progress", "word")
    items = (await client.get(f"{URL}/{body['id']}/input_items")).json()
    assert items["data"][0]["content"][0]["text"] == "hi"
    cancelled = (await client.post(f"{URL}/{body['id']}/cancel")).json()
    assert (cancelled["status"], cancelled["output"][0]["status"]) == ("cancelled", "incomplete")
    assert engine.cancelled == [engine.requests[0].request_id]
    for response in (await client.get(f"{URL}/{body['id']}"), await client.post(f"{URL}/{body['id']}/cancel")):
        assert response.json() == cancelled


async def test_cancelled_before_it_has_begun(client: httpx.AsyncClient, engine: FakeDispatchEngine) -> None:
    async def accept(task: DispatchTask) -> None:
        task.add_accepted(Accepted(task.request_id, 1))
        await asyncio.Event().wait()

    engine.script = accept
    body = await begun(client)
    cancelled = (await client.post(f"{URL}/{body['id']}/cancel")).json()
    assert (cancelled["status"], cancelled["output"]) == ("cancelled", [])
    assert engine.open_requests == 0


async def test_forgotten_while_it_grows(client: httpx.AsyncClient, engine: FakeDispatchEngine) -> None:
    engine.script = never_end
    body = await begun(client)
    assert (await client.delete(f"{URL}/{body['id']}")).json()["deleted"]
    assert (await client.get(f"{URL}/{body['id']}")).status_code == 404
    assert engine.open_requests == 0


async def test_forgotten_by_a_client_that_does_not_wait(client: httpx.AsyncClient, engine: FakeDispatchEngine) -> None:
    engine.script = never_end
    one = f"{URL}/{(await begun(client))['id']}"
    forgetting = asyncio.create_task(client.delete(one))
    while not engine.cancelled:
        await asyncio.sleep(0)
    forgetting.cancel()
    await asyncio.wait([forgetting])
    assert (await client.get(one)).status_code == 404


async def test_forgotten_though_it_was_too_long_to_be_kept(
    engine: FakeDispatchEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine.script = never_end
    monkeypatch.setattr(routes, "ResponseStore", lambda: ResponseStore(max_bytes=10))
    async with client_of(Gateway(dispatch_engine=engine)) as client:
        body = await begun(client)
        assert (await client.delete(f"{URL}/{body['id']}")).json()["deleted"]


async def test_failed(client: httpx.AsyncClient, engine: FakeDispatchEngine) -> None:
    engine.script = fail_with(ServerLostError("The model server is gone."), after=["Hel"])
    ended = await status_after(client, (await begun(client))["id"], "queued", "in_progress")
    assert ended["error"] == {"code": "server_error", "message": "The model server is gone."}


async def test_cancelled_from_elsewhere(client: httpx.AsyncClient, engine: FakeDispatchEngine) -> None:
    engine.script = fail_with(RequestCancelledError(), after=["Hel"])
    ended = await status_after(client, (await begun(client))["id"], "queued", "in_progress")
    assert (ended["status"], ended["error"], ended["output"][0]["status"]) == ("cancelled", None, "incomplete")


async def test_what_is_refused_is_refused_at_once(client: httpx.AsyncClient, engine: FakeDispatchEngine) -> None:
    engine.script = fail_with(InvalidRequestError("No.", param="messages"))
    response = await client.post(URL, json={"input": "hi", "background": True})
    assert (response.status_code, response.json()["error"]["param"]) == (400, "input")


async def test_nobody_goes_on_from_what_has_not_ended(client: httpx.AsyncClient, engine: FakeDispatchEngine) -> None:
    engine.script = never_end
    body = await begun(client)
    response = await client.post(URL, json={"input": "and?", "previous_response_id": body["id"]})
    assert response.json()["error"]["code"] == "previous_response_not_found"


async def test_no_more_than_may_be(engine: FakeDispatchEngine) -> None:
    engine.script = never_end
    gateway = Gateway(dispatch_engine=engine)
    gateway._background = BackgroundResponses(most=2)
    async with client_of(gateway) as client:
        first, _ = await begun(client), await begun(client)
        response = await client.post(URL, json={"input": "hi", "background": True})
        assert (response.status_code, response.json()["error"]["code"]) == (429, RateLimitError.default_code)
        await client.post(f"{URL}/{first['id']}/cancel")
        together = [client.post(URL, json={"input": "hi", "background": True}) for _ in range(3)]
        assert sorted(response.status_code for response in await asyncio.gather(*together)) == [200, 429, 429]
        assert engine.open_requests == 2


async def test_no_more_bytes_than_may_be(engine: FakeDispatchEngine) -> None:
    engine.script = never_end
    gateway = Gateway(dispatch_engine=engine)
    gateway._background = BackgroundResponses(max_bytes=10_000)
    long = {"instructions": "x" * 6000}
    async with client_of(gateway) as client:
        first = await begun(client, **long)
        assert (await client.post(URL, json={"input": "hi", "background": True, **long})).status_code == 429
        await begun(client)
        await client.post(f"{URL}/{first['id']}/cancel")
        await begun(client, **long)


async def test_no_more_of_a_key_than_it_may_have(engine: FakeDispatchEngine) -> None:
    engine.script = never_end
    async with client_of(Gateway(GatewayConfig(api_keys=("ann", "bob"), max_open_per_key=2), engine)) as client:
        statuses = [
            (await client.post(URL, json={"input": "hi", "background": True}, headers={"x-api-key": key})).status_code
            for key in ("ann", "ann", "ann", "bob")
        ]
    assert statuses == [200, 200, 429, 200]


async def test_it_can_be_stopped_where_nothing_else_is_let_in(engine: FakeDispatchEngine) -> None:
    engine.script = never_end
    async with client_of(Gateway(GatewayConfig(api_keys=("ann",), max_open_per_key=1), engine)) as client:
        client.headers["x-api-key"] = "ann"
        response = await begun(client)
        waiting = asyncio.create_task(client.post("/v1/chat/completions", json={"messages": "x"}))
        while engine.open_requests < 2:
            await asyncio.sleep(0)
        assert (await client.get(f"{URL}/{response['id']}")).status_code == 429
        stopped = await client.post(f"{URL}/{response['id']}/cancel")
        assert (stopped.status_code, stopped.json()["status"]) == (200, "cancelled")
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)


async def test_none_outlives_the_gateway(engine: FakeDispatchEngine) -> None:
    engine.script = never_end
    gateway = Gateway(dispatch_engine=engine)
    async with client_of(gateway) as client, gateway.app.router.lifespan_context(gateway.app):
        await begun(client)
        await begun(client)
        assert engine.open_requests == 2
        before = asyncio.all_tasks()
        await gateway._background.close()
        assert engine.open_requests == 0
        assert len(asyncio.all_tasks()) <= len(before) - 2


async def test_streamed_and_streamed_again(client: httpx.AsyncClient) -> None:
    response = await client.post(URL, json={"input": "hi", "background": True, "stream": True})
    events = parsed_events(response.text)
    assert told(events[:4]) == ["created", "queued", "in_progress", "output_item.added"]
    assert [event["response"]["status"] for event in events[:3]] == ["queued", "queued", "in_progress"]
    assert told(events[-1:]) == ["completed"]
    one = f"{URL}/{events[0]['response']['id']}"
    assert parsed_events((await client.get(f"{one}?stream=true")).text) == events
    assert parsed_events((await client.get(f"{one}?stream=true&starting_after=4")).text) == events[5:]
    last = events[-1]["sequence_number"]
    assert (await client.get(f"{one}?stream=true&starting_after={last}")).text == ""
    assert (await client.get(f"{one}?stream=true&starting_after=-1")).status_code == 400
    assert (await client.get(one)).json() == events[-1]["response"]


async def test_what_ends_without_a_word_was_under_way_too(
    client: httpx.AsyncClient, engine: FakeDispatchEngine
) -> None:
    engine.script = saying([])
    response = await client.post(URL, json={"input": "hi", "background": True, "stream": True})
    assert told(parsed_events(response.text))[:3] == ["created", "queued", "in_progress"]


async def test_readers_come_and_go_while_it_grows(client: httpx.AsyncClient, engine: FakeDispatchEngine) -> None:
    go_on = asyncio.Event()

    async def halting(task: DispatchTask) -> None:
        task.add_accepted(Accepted(task.request_id, 1))
        task.add_delta(Delta(task.request_id, 0, "a"))
        await go_on.wait()
        task.fail(ServerLostError("gone"))

    engine.script = halting
    creating = asyncio.create_task(client.post(URL, json={"input": "hi", "background": True, "stream": True}))
    while not engine.requests:
        await asyncio.sleep(0)
    one = f"{URL}/{engine.requests[0].request_id}"
    await status_after(client, engine.requests[0].request_id, "not yet", "queued")
    gone = asyncio.create_task(client.get(f"{one}?stream=true"))
    staying = asyncio.create_task(client.get(f"{one}?stream=true&starting_after=1"))
    await asyncio.sleep(0.01)
    gone.cancel()
    go_on.set()
    events = parsed_events((await creating).text)
    assert told(events[-2:]) == ["error", "failed"]
    assert parsed_events((await staying).text) == events[2:]


async def test_a_stream_of_large_events_is_whole(client: httpx.AsyncClient) -> None:
    fields = {"input": "hi", "background": True, "stream": True, "instructions": "i" * (MAX_EVENT_LOG_BYTES // 2)}
    events = parsed_events((await client.post(URL, json=fields)).text)
    assert (events[0]["sequence_number"], told(events[-1:])) == (0, ["completed"])


async def test_a_cancelled_stream_ends(client: httpx.AsyncClient, engine: FakeDispatchEngine) -> None:
    engine.script = never_end
    creating = asyncio.create_task(client.post(URL, json={"input": "hi", "background": True, "stream": True}))
    while not engine.requests:
        await asyncio.sleep(0)
    one = f"{URL}/{engine.requests[0].request_id}"
    await status_after(client, engine.requests[0].request_id, "not yet", "queued")
    await client.post(f"{one}/cancel")
    events = parsed_events((await creating).text)
    assert told(events)[-5:] == ["output_text.delta", *MESSAGE_DONE, "error"]
    assert (events[-2]["item"]["status"], events[-1]["code"]) == ("incomplete", "request_cancelled")
    response = (await client.get(one)).json()
    assert (response["status"], response["output"]) == ("cancelled", [events[-2]["item"]])


async def test_a_stream_that_is_cancelled_from_elsewhere_says_so(
    client: httpx.AsyncClient, engine: FakeDispatchEngine
) -> None:
    engine.script = fail_with(RequestCancelledError(), after=["Hel"])
    response = await client.post(URL, json={"input": "hi", "background": True, "stream": True})
    *_, error = parsed_events(response.text)
    assert (error["type"], error["code"]) == ("error", "request_cancelled")
