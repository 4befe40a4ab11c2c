"""The Responses API by the real `openai` client against the real service."""

from __future__ import annotations

import json
import time
from typing import Any

import openai
import pytest
from openai.types.responses import Response
from pydantic import BaseModel, Field

from tests.e2e.service import Service

MODEL = "smollm2-135m-instruct"
QUESTION = "What is the capital of France?"
TALKATIVE: dict[str, Any] = {"model": MODEL, "input": "Tell a long story.", "extra_body": {"ignore_eos": True}}
WEATHER: Any = {
    "type": "function",
    "name": "get_weather",
    "description": "The weather in a city.",
    "parameters": {
        "type": "object",
        "properties": {"city": {"type": "string", "maxLength": 20}},
        "required": ["city"],
        "additionalProperties": False,
    },
    "strict": True,
}


def ask(service: Service, **fields: Any) -> Any:
    return service.openai().responses.create(**{"model": MODEL, "input": QUESTION, "temperature": 0, **fields})


def wait_for_end(client: openai.OpenAI, response: Response) -> Response:
    while response.status in ("queued", "in_progress"):
        time.sleep(0.02)
        response = client.responses.retrieve(response.id)
    return response


def test_whole(builtin_service: Service) -> None:
    response = ask(builtin_service, metadata={"topic": "capitals"}, include=["message.output_text.logprobs"])
    assert (response.status, response.output_text) == ("completed", "The capital of France is Paris.")
    assert response.metadata == {"topic": "capitals"}
    assert (response.usage.input_tokens, response.usage.output_tokens, response.usage.total_tokens) == (37, 8, 45)
    places = response.output[0].content[0].logprobs
    assert "".join(place.token for place in places).startswith(response.output_text)
    assert "Paris" in builtin_service.chat(model=MODEL, messages=QUESTION, temperature=0).text


def test_streamed_equals_the_whole(builtin_service: Service) -> None:
    events = list(ask(builtin_service, stream=True))
    assert [event.sequence_number for event in events] == list(range(len(events)))
    assert [event.type for event in events[:4]] == [
        "response.created",
        "response.in_progress",
        "response.output_item.added",
        "response.content_part.added",
    ]
    assert events[-1].type == "response.completed"
    deltas = [event.delta for event in events if event.type == "response.output_text.delta"]
    assert len(deltas) > 3
    assert "".join(deltas) == events[-1].response.output_text == ask(builtin_service).output_text


def test_stream_helper(builtin_service: Service) -> None:
    with builtin_service.openai().responses.stream(model=MODEL, input=QUESTION, temperature=0) as stream:
        kinds = {event.type for event in stream}
        final = stream.get_final_response()
    assert "response.output_text.done" in kinds
    assert final.output_text == "The capital of France is Paris."


def test_cut_off_by_max_output_tokens(builtin_service: Service) -> None:
    response = ask(builtin_service, max_output_tokens=3)
    assert (response.status, response.output[0].status) == ("incomplete", "incomplete")
    assert response.incomplete_details.reason == "max_output_tokens"
    *_, last = ask(builtin_service, max_output_tokens=3, stream=True)
    assert (last.type, last.response.output_text) == ("response.incomplete", response.output_text)


class Person(BaseModel):
    name: str = Field(max_length=20)
    age: int = Field(ge=0, le=150)


def test_parse_gives_an_object(builtin_service: Service) -> None:
    client = builtin_service.openai()
    response = client.responses.parse(model=MODEL, input="Ann is 30.", text_format=Person, temperature=0)
    assert isinstance(response.output_parsed, Person)
    with client.responses.stream(model=MODEL, input="Ann is 30.", text_format=Person, temperature=0) as stream:
        assert stream.get_final_response().output_parsed == response.output_parsed


def test_a_conversation_goes_on(builtin_service: Service) -> None:
    client = builtin_service.openai()
    first = ask(builtin_service, input="My name is Bartholomew. Remember it.", instructions="Be short.")
    second = ask(builtin_service, input="What is my name?", previous_response_id=first.id)
    messages = [
        {"role": "user", "content": "My name is Bartholomew. Remember it."},
        {"role": "assistant", "content": first.output_text},
        {"role": "user", "content": "What is my name?"},
    ]
    chat = client.chat.completions.create(model=MODEL, messages=messages, temperature=0)  # type: ignore[arg-type]
    assert second.output_text == chat.choices[0].message.content
    assert second.previous_response_id == first.id
    listed = client.responses.input_items.list(second.id, order="asc", limit=2)
    texts = [item.content[0].text for item in listed]  # type: ignore[union-attr]
    assert texts == [message["content"] for message in messages]


def test_functions_are_called_and_told_what_came_of_it(builtin_service: Service) -> None:
    client = builtin_service.openai()
    tools: dict[str, Any] = {"tools": [WEATHER], "tool_choice": "required", "parallel_tool_calls": False}
    first = ask(builtin_service, input="How is the weather in Paris?", **tools)
    [call] = first.output
    assert (call.type, call.name) == ("function_call", "get_weather")
    assert isinstance(json.loads(call.arguments)["city"], str)
    output: Any = [{"type": "function_call_output", "call_id": call.call_id, "output": "sunny"}]
    second = ask(builtin_service, input=output, previous_response_id=first.id, tools=[WEATHER], tool_choice="none")
    assert second.output_text
    items = [item.type for item in client.responses.input_items.list(second.id, order="asc")]
    assert items == ["message", "function_call", "function_call_output"]


def test_streamed_calls(builtin_service: Service) -> None:
    fields: Any = {"model": MODEL, "input": "How is the weather in Paris?", "temperature": 0, "tools": [WEATHER]}
    choice: Any = {"type": "function", "name": "get_weather"}
    with builtin_service.openai().responses.stream(**fields, tool_choice=choice) as stream:
        deltas = [event.delta for event in stream if event.type == "response.function_call_arguments.delta"]
        (call,) = stream.get_final_response().output
    assert call.type == "function_call"
    assert "".join(deltas) == call.arguments
    assert call.parsed_arguments == json.loads(call.arguments)


def test_a_background_stream_goes_on_where_it_was_lost(builtin_service: Service) -> None:
    client = builtin_service.openai()
    seen = []
    with client.responses.create(model=MODEL, input=QUESTION, temperature=0, background=True, stream=True) as lost:
        for event in lost:
            seen.append(event)
            if event.type == "response.output_text.delta":
                break
    response_id = seen[0].response.id  # type: ignore[union-attr]
    rest = list(client.responses.retrieve(response_id, stream=True, starting_after=seen[-1].sequence_number))
    assert [event.sequence_number for event in [*seen, *rest]] == list(range(len(seen) + len(rest)))
    assert rest[-1].type == "response.completed"
    assert rest[-1].response.output_text == "The capital of France is Paris."


def test_what_is_stored_can_be_fetched_and_forgotten(builtin_service: Service) -> None:
    client = builtin_service.openai()
    response = ask(builtin_service)
    assert client.responses.retrieve(response.id) == response
    client.responses.delete(response.id)
    for forget in (client.responses.retrieve, client.responses.delete, client.responses.cancel):
        with pytest.raises(openai.NotFoundError):
            forget(response.id)
    unkept = ask(builtin_service, store=False)
    with pytest.raises(openai.NotFoundError):
        client.responses.retrieve(unkept.id)
    with pytest.raises(openai.BadRequestError) as caught:
        ask(builtin_service, previous_response_id=unkept.id)
    assert caught.value.code == "previous_response_not_found"


def test_in_the_background(builtin_service: Service) -> None:
    client = builtin_service.openai()
    response = ask(builtin_service, background=True)
    assert response.status == "queued"
    ended = wait_for_end(client, response)
    assert (ended.status, ended.output_text) == ("completed", "The capital of France is Paris.")
    assert client.responses.cancel(response.id) == ended


def test_cancelled_in_the_background(builtin_service: Service) -> None:
    client = builtin_service.openai()
    response = client.responses.create(**TALKATIVE, background=True)
    while not response.output_text:
        response = client.responses.retrieve(response.id)
    assert response.status == "in_progress"
    cancelled = client.responses.cancel(response.id)
    assert cancelled.status == "cancelled"
    assert client.responses.retrieve(response.id) == cancelled
    assert builtin_service.load()["open_requests"] == 0


def test_only_what_is_in_the_background_can_be_cancelled(builtin_service: Service) -> None:
    response = ask(builtin_service)
    with pytest.raises(openai.BadRequestError):
        builtin_service.openai().responses.cancel(response.id)


def test_what_is_too_long(builtin_service: Service) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        ask(builtin_service, input="word " * 9000)
    assert (caught.value.code, caught.value.param) == ("context_length_exceeded", "input")
