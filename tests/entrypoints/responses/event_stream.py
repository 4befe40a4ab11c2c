"""What a client sees of a stream of the Responses API, and servers that say what a test wants."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import httpx
from openai.types.responses import ResponseStreamEvent
from pydantic import TypeAdapter

from vfastml.engine.dispatch_replies import Accepted, Delta, Finished, Usage
from vfastml.engine.dispatch_task import DispatchTask

URL = "/v1/responses"
MESSAGE_DONE = ["output_text.done", "content_part.done", "output_item.done"]

_EVENT: TypeAdapter[Any] = TypeAdapter(ResponseStreamEvent)


def saying(deltas: Sequence[Delta], usage: Usage | None = None) -> Callable[[DispatchTask], Awaitable[None]]:
    """A script for the fake engine."""

    async def script(task: DispatchTask) -> None:
        task.add_accepted(Accepted(task.request_id, 5))
        for delta in deltas:
            task.add_delta(delta)
        task.finish(Finished(task.request_id, usage or Usage(5, 2, 2, 1)))

    return script


def delta(text: str = "", **fields: Any) -> Delta:
    """One of the only choice."""
    return Delta("r", 0, text, **fields)


def parsed_events(text: str) -> list[dict[str, Any]]:
    """Each is named as its type says, numbered without a gap, and what OpenAI's client takes for such an event."""
    events = []
    for block in text.split("\n\n")[:-1]:
        name, data = block.split("\n")
        body = json.loads(data.removeprefix("data: "))
        assert name == f"event: {body['type']}"
        assert _EVENT.validate_python(body).type == body["type"]
        events.append(body)
    first = events[0]["sequence_number"]
    assert [event["sequence_number"] for event in events] == list(range(first, first + len(events)))
    return events


async def streamed(client: httpx.AsyncClient, **fields: Any) -> list[dict[str, Any]]:
    """The events that answer a body."""
    response = await client.post(URL, json={"input": "hi", "stream": True, **fields})
    assert response.status_code == 200
    assert response.headers["content-type"].startswith("text/event-stream")
    return parsed_events(response.text)


def told(events: Sequence[dict[str, Any]]) -> list[str]:
    """The types, without what they all begin with."""
    return [event["type"].removeprefix("response.") for event in events]
