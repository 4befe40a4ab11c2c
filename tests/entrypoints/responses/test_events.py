"""The events of a streamed response: their order, their parts, and how they end."""

from __future__ import annotations

from typing import Any

import httpx

from tests.entrypoints.fake_dispatch_engine import PLACE, FakeDispatchEngine, fail_with
from tests.entrypoints.responses.event_stream import MESSAGE_DONE, URL, delta, saying, streamed, told
from vfastml.engine.dispatch_replies import Accepted, Delta, ToolCallPiece
from vfastml.engine.dispatch_task import DispatchTask
from vfastml.errors import ServerLostError

BEGUN = ["created", "in_progress"]
MESSAGE_BEGUN = ["output_item.added", "content_part.added"]


async def test_text(client: httpx.AsyncClient) -> None:
    events = await streamed(client)
    assert told(events) == [*BEGUN, *MESSAGE_BEGUN, *["output_text.delta"] * 2, *MESSAGE_DONE, "completed"]
    created, _, added, part, first, second, text, part_done, item_done, completed = events
    assert (created["response"]["status"], created["response"]["output"]) == ("in_progress", [])
    assert (added["item"]["status"], added["item"]["content"], part["part"]["text"]) == ("in_progress", [], "")
    assert (first["delta"], second["delta"], text["text"]) == ("Hello", " world", "Hello world")
    assert part_done["part"] == item_done["item"]["content"][0]
    assert completed["response"]["output"] == [item_done["item"]]
    assert completed["response"]["status"] == item_done["item"]["status"] == "completed"
    assert len({event["item_id"] for event in events if "item_id" in event} | {added["item"]["id"]}) == 1
    assert len({event["response"]["id"] for event in events if "response" in event}) == 1


async def test_thoughts_words_and_calls_are_items_of_their_own(
    client: httpx.AsyncClient, engine: FakeDispatchEngine
) -> None:
    engine.script = saying(
        [
            delta(reasoning="Let me "),
            delta(reasoning="see."),
            delta("I look."),
            delta(tool_calls=[ToolCallPiece(0, "call_a", "look"), ToolCallPiece(0, arguments='{"at":')]),
            delta(tool_calls=[ToolCallPiece(0, arguments="1}"), ToolCallPiece(1, "call_b", "hear", "{}")]),
            delta(finish_reason="tool_calls"),
        ]
    )
    events = await streamed(client)
    assert told(events) == [
        *BEGUN,
        *MESSAGE_BEGUN,
        *["reasoning_text.delta"] * 2,
        *["reasoning_text.done", "content_part.done", "output_item.done"],
        *MESSAGE_BEGUN,
        "output_text.delta",
        *MESSAGE_DONE,
        "output_item.added",
        *["function_call_arguments.delta"] * 2,
        *["function_call_arguments.done", "output_item.done"],
        "output_item.added",
        "function_call_arguments.delta",
        *["function_call_arguments.done", "output_item.done"],
        "completed",
    ]
    done = [event for event in events if event["type"] == "response.output_item.done"]
    assert [event["output_index"] for event in done] == [0, 1, 2, 3]
    output = events[-1]["response"]["output"]
    assert output == [event["item"] for event in done]
    assert output[0]["content"] == [{"type": "reasoning_text", "text": "Let me see."}]
    assert output[0]["summary"] == []
    assert [(item["call_id"], item["name"], item["arguments"]) for item in output[2:]] == [
        ("call_a", "look", '{"at":1}'),
        ("call_b", "hear", "{}"),
    ]
    added = [event["item"] for event in events if event["type"] == "response.output_item.added"]
    assert [item.get("arguments") for item in added] == [None, None, "", ""]
    assert [item["id"] for item in added] == [item["id"] for item in output]


async def test_more_of_an_earlier_call_belongs_to_it(client: httpx.AsyncClient, engine: FakeDispatchEngine) -> None:
    first, second = ToolCallPiece(0, "call_a", "look", '{"at":'), ToolCallPiece(1, "call_b", "hear", "{}")
    engine.script = saying([delta(tool_calls=[first, second, ToolCallPiece(0, arguments="1}")])])
    events = await streamed(client)
    output = events[-1]["response"]["output"]
    assert [(item["call_id"], item["arguments"], item["status"]) for item in output] == [
        ("call_a", '{"at":1}', "completed"),
        ("call_b", "{}", "completed"),
    ]
    done = {event["output_index"]: event["item"] for event in events if event["type"] == "response.output_item.done"}
    assert [done[0], done[1]] == output


async def test_words_after_a_call_are_another_message(client: httpx.AsyncClient, engine: FakeDispatchEngine) -> None:
    engine.script = saying([delta("a"), delta(tool_calls=[ToolCallPiece(0, "c", "f", "{}")]), delta("b")])
    output = (await streamed(client))[-1]["response"]["output"]
    assert [item["type"] for item in output] == ["message", "function_call", "message"]


async def test_cut_off(client: httpx.AsyncClient, engine: FakeDispatchEngine) -> None:
    engine.script = saying([delta(reasoning="So"), delta("Hel"), delta("lo", finish_reason="length")])
    *_, last = await streamed(client)
    assert last["type"] == "response.incomplete"
    response = last["response"]
    assert (response["status"], response["incomplete_details"]) == ("incomplete", {"reason": "max_output_tokens"})
    assert [item["status"] for item in response["output"]] == ["completed", "incomplete"]
    assert response["usage"]["output_tokens"] == 2


async def test_nothing_said_is_an_empty_message(client: httpx.AsyncClient, engine: FakeDispatchEngine) -> None:
    engine.script = saying([delta(finish_reason="stop")])
    events = await streamed(client)
    assert told(events) == [*BEGUN, *MESSAGE_BEGUN, *MESSAGE_DONE, "completed"]
    assert events[-1]["response"]["output"][0]["content"][0]["text"] == ""


async def test_failure_in_mid_stream(client: httpx.AsyncClient, engine: FakeDispatchEngine) -> None:
    engine.script = fail_with(ServerLostError("The model server is gone."), after=["Hel"])
    events = await streamed(client)
    assert told(events) == [*BEGUN, *MESSAGE_BEGUN, "output_text.delta", "error", "failed"]
    error, failed = events[-2:]
    assert (error["code"], error["message"], error["param"]) == ("server_lost", "The model server is gone.", None)
    response = failed["response"]
    assert (response["status"], response["output"]) == ("failed", [])
    assert response["error"] == {"code": "server_error", "message": "The model server is gone."}
    assert (await client.get(f"{URL}/{response['id']}")).json() == response


async def test_unforeseen_exceptions_in_mid_stream(client: httpx.AsyncClient, engine: FakeDispatchEngine) -> None:
    async def unencodable(task: DispatchTask) -> None:
        task.add_accepted(Accepted(task.request_id, 1))
        task.add_delta(Delta(task.request_id, 0, "\ud800"))

    engine.script = unencodable
    *_, error, failed = await streamed(client)
    assert (error["code"], failed["response"]["status"]) == ("internal_error", "failed")
    assert engine.cancelled == [engine.requests[0].request_id]


async def test_what_is_refused_before_it_begins_is_no_stream(
    client: httpx.AsyncClient, engine: FakeDispatchEngine
) -> None:
    engine.script = fail_with(ServerLostError("gone"))
    response = await client.post(URL, json={"input": "hi", "stream": True})
    assert (response.status_code, response.json()["error"]["code"]) == (503, "server_lost")


def logprobs_of(events: list[dict[str, Any]]) -> list[int]:
    """How many places each event that has some has."""
    return [len(event["logprobs"]) for event in events if "logprobs" in event]


async def test_logprobs_are_those_of_the_text(client: httpx.AsyncClient, engine: FakeDispatchEngine) -> None:
    """Of thoughts there are none, of text that was held back they come with it, of the end token at the end."""
    engine.script = saying(
        [
            delta(reasoning="So", logprobs=[PLACE]),
            delta(logprobs=[PLACE]),
            delta("Hello", logprobs=[PLACE]),
            delta(finish_reason="stop", logprobs=[PLACE]),
        ]
    )
    events = await streamed(client, include=["message.output_text.logprobs"], top_logprobs=1)
    assert logprobs_of(events) == [2, 3]
    (place, *_) = events[-1]["response"]["output"][1]["content"][0]["logprobs"]
    assert (place["token"], place["logprob"], place["top_logprobs"][0]["logprob"]) == ("Hello", -0.5, -0.25)


async def test_logprobs_of_a_call_are_not_told(client: httpx.AsyncClient, engine: FakeDispatchEngine) -> None:
    engine.script = saying(
        [
            delta("a", logprobs=[PLACE]),
            delta(logprobs=[PLACE]),
            delta(tool_calls=[ToolCallPiece(0, "c", "f", "{}")], logprobs=[PLACE]),
            delta(finish_reason="tool_calls", logprobs=[PLACE]),
        ]
    )
    assert logprobs_of(await streamed(client, top_logprobs=1)) == [1, 1]
