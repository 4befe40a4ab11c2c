"""What can be done with a response that is kept."""

from __future__ import annotations

from typing import Any

import httpx
import pytest
from openai.types.responses import ResponseItemList

from tests.entrypoints.conftest import client_of
from tests.entrypoints.fake_dispatch_engine import FakeDispatchEngine, fail_with
from tests.entrypoints.responses.event_stream import URL, delta, saying, streamed
from vfastml.engine.dispatch_replies import ToolCallPiece
from vfastml.engine.dispatch_requests import TextGenerationReq
from vfastml.entrypoints.api_server import Gateway
from vfastml.entrypoints.gateway_config import GatewayConfig
from vfastml.entrypoints.limits import MAX_BODY_BYTES
from vfastml.errors import ServerLostError


async def answered(client: httpx.AsyncClient, **fields: Any) -> dict[str, Any]:
    response = await client.post(URL, json={"input": "hi", **fields})
    assert response.status_code == 200
    found: dict[str, Any] = response.json()
    return found


async def test_fetched_and_forgotten(client: httpx.AsyncClient) -> None:
    body = await answered(client)
    one = f"{URL}/{body['id']}"
    assert (await client.get(one)).json() == body
    assert (await client.delete(one)).json() == {"id": body["id"], "object": "response", "deleted": True}
    for response in (await client.get(one), await client.delete(one), await client.get(f"{one}/input_items")):
        assert (response.status_code, response.json()["error"]["type"]) == (404, "not_found_error")


async def test_a_streamed_one_is_kept_too(client: httpx.AsyncClient) -> None:
    response = (await streamed(client))[-1]["response"]
    assert (await client.get(f"{URL}/{response['id']}")).json() == response


async def test_not_kept_if_it_is_not_to_be(client: httpx.AsyncClient) -> None:
    whole = await answered(client, store=False)
    last = (await streamed(client, store=False))[-1]["response"]
    for response in (whole, last):
        assert response["store"] is False
        assert (await client.get(f"{URL}/{response['id']}")).status_code == 404


async def test_what_fails_before_it_is_answered_is_not_kept(
    client: httpx.AsyncClient, engine: FakeDispatchEngine
) -> None:
    engine.script = fail_with(ServerLostError("gone"), after=["Hel"])
    response = await client.post(URL, json={"input": "hi"})
    assert response.status_code == 503
    response_id = engine.requests[0].request_id
    assert (await client.get(f"{URL}/{response_id}")).status_code == 404


@pytest.mark.rule("S11")
async def test_keys_keep_responses_apart(engine: FakeDispatchEngine) -> None:
    async with client_of(Gateway(GatewayConfig(api_keys=("ann", "bob")), engine)) as client:
        anns, bobs = {"x-api-key": "ann"}, {"x-api-key": "bob"}
        body = (await client.post(URL, json={"input": "hi", "background": True}, headers=anns)).json()
        while (await client.get(f"{URL}/{body['id']}", headers=anns)).json()["status"] != "completed":
            assert (await client.get(f"{URL}/{body['id']}", headers=bobs)).status_code == 404
        for method, path in (("GET", ""), ("DELETE", ""), ("POST", "/cancel"), ("GET", "/input_items")):
            response = await client.request(method, f"{URL}/{body['id']}{path}", headers=bobs)
            assert response.status_code == 404
        going_on = {"input": "and?", "previous_response_id": body["id"]}
        response = await client.post(URL, json=going_on, headers=bobs)
        assert response.json()["error"]["code"] == "previous_response_not_found"
        assert (await client.post(URL, json=going_on, headers=anns)).status_code == 200


async def test_a_conversation_with_calls_goes_on(client: httpx.AsyncClient, engine: FakeDispatchEngine) -> None:
    call = ToolCallPiece(0, "call_a", "look", "{}")
    engine.script = saying([delta(reasoning="Hm."), delta(tool_calls=[call], finish_reason="tool_calls")])
    first = await answered(client, instructions="Be short.")
    result = {"type": "function_call_output", "call_id": first["output"][1]["call_id"], "output": "5"}
    second = await answered(client, input=[result], previous_response_id=first["id"], instructions="Be long.")
    third = await answered(client, input="more", previous_response_id=second["id"])
    answer = {
        "role": "assistant",
        "content": "",
        "reasoning_content": "Hm.",
        "tool_calls": [{"id": "call_a", "type": "function", "function": {"name": "look", "arguments": "{}"}}],
    }
    request = engine.requests[-1]
    assert isinstance(request, TextGenerationReq)
    tool = {"role": "tool", "tool_call_id": "call_a", "content": "5"}
    user = {"role": "user", "content": "hi"}
    assert request.messages == [user, answer, tool, answer, {**user, "content": "more"}]
    listed = (await client.get(f"{URL}/{third['id']}/input_items?order=asc")).json()
    ResponseItemList.model_validate(listed)
    kinds = ["message", "reasoning", "function_call", "function_call_output", "reasoning", "function_call", "message"]
    assert [item["type"] for item in listed["data"]] == kinds


async def test_a_conversation_outlives_what_it_goes_on_from(
    client: httpx.AsyncClient, engine: FakeDispatchEngine
) -> None:
    first = await answered(client)
    second = await answered(client, previous_response_id=first["id"])
    await client.delete(f"{URL}/{first['id']}")
    await answered(client, previous_response_id=second["id"])
    request = engine.requests[-1]
    assert isinstance(request, TextGenerationReq)
    assert len(request.messages or ()) == 5


async def test_no_conversation_grows_beyond_what_could_be_sent(client: httpx.AsyncClient) -> None:
    for given in ("x" * (9 << 20), [{"role": "user", "content": "x"}] * 2500):
        first = await answered(client, input=given)
        response = await client.post(URL, json={"input": given, "previous_response_id": first["id"]})
        error = response.json()["error"]
        assert (response.status_code, error["param"]) == (400, "previous_response_id")
        assert error["code"] == "context_length_exceeded"


async def test_what_a_body_may_hold_is_answered_and_gone_on_from(engine: FakeDispatchEngine) -> None:
    async with client_of(Gateway(GatewayConfig(max_body_bytes=2 * MAX_BODY_BYTES), engine)) as client:
        first = await answered(client, input="x" * (MAX_BODY_BYTES + 1))
        await answered(client, previous_response_id=first["id"])


async def test_what_has_become_longer_than_it_was_sent_is_answered(engine: FakeDispatchEngine) -> None:
    given = [{"role": "assistant", "content": [{"type": "output_text", "text": ""}] * 8}]
    async with client_of(Gateway(GatewayConfig(max_body_bytes=500), engine)) as client:
        first = await answered(client, input=given)
        response = await client.post(URL, json={"input": "hi", "previous_response_id": first["id"]})
        assert response.json()["error"]["code"] == "context_length_exceeded"


async def test_input_items_by_the_page(client: httpx.AsyncClient) -> None:
    given = [{"role": "user", "content": str(number), "id": f"msg_{number}"} for number in range(25)]
    body = await answered(client, input=given)

    async def page(query: str) -> tuple[list[str], bool]:
        listed = (await client.get(f"{URL}/{body['id']}/input_items?{query}")).json()
        names = [item["id"].removeprefix("msg_") for item in listed["data"]]
        assert (listed["first_id"], listed["last_id"]) == (f"msg_{names[0]}", f"msg_{names[-1]}")
        return names, listed["has_more"]

    assert await page("") == ([str(number) for number in range(24, 4, -1)], True)
    assert await page("order=asc&limit=2&after=msg_3") == (["4", "5"], True)
    assert await page("after=msg_5") == (["4", "3", "2", "1", "0"], False)
    listed = (await client.get(f"{URL}/{body['id']}/input_items?after=msg_0")).json()
    assert (listed["data"], listed["first_id"], listed["has_more"]) == ([], None, False)


async def test_no_two_items_of_a_conversation_have_one_id(client: httpx.AsyncClient) -> None:
    given = [{"role": "user", "content": "a", "id": name} for name in ("same", "same", "z" * 513)]
    first = await answered(client, input=given)
    going_on = [*given[:1], *first["output"], {"role": "user", "content": "b", "id": "other"}]
    second = await answered(client, input=going_on, previous_response_id=first["id"])
    ids: list[str] = []
    after, has_more = "", True
    while has_more:
        page = (await client.get(f"{URL}/{second['id']}/input_items?order=asc&limit=1{after}")).json()
        ids.append(page["last_id"])
        after, has_more = f"&after={ids[-1]}", page["has_more"]
        assert len(ids) <= 7
    assert len(set(ids)) == 7
    assert (ids[0], ids[3], ids[6]) == ("same", first["output"][0]["id"], "other")
    assert max(map(len, ids)) <= 512


@pytest.mark.parametrize(
    ("path", "param"),
    [
        ("/input_items?limit=0", "limit"),
        ("/input_items?limit=101", "limit"),
        ("/input_items?limit=%C2%B2", "limit"),
        ("/input_items?limit=" + "9" * 5000, "limit"),
        ("/input_items?order=up", "order"),
        ("/input_items?after=msg_x", "after"),
        ("?stream=maybe", "stream"),
        ("?stream=true", "stream"),
    ],
)
async def test_bad_queries(client: httpx.AsyncClient, path: str, param: str) -> None:
    body = await answered(client)
    response = await client.get(f"{URL}/{body['id']}{path}")
    assert (response.status_code, response.json()["error"]["param"]) == (400, param)


async def test_only_what_is_in_the_background_can_be_cancelled(client: httpx.AsyncClient) -> None:
    body = await answered(client)
    response = await client.post(f"{URL}/{body['id']}/cancel")
    assert (response.status_code, response.json()["error"]["type"]) == (400, "invalid_request_error")
    assert (await client.post(f"{URL}/resp_unknown/cancel")).status_code == 404
