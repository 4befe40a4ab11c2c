"""langchain-openai's ChatOpenAI, as its documentation has it for servers that are not OpenAI's."""

from __future__ import annotations

import pytest
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI

from tests.clients.plain_answer import MODEL, NUM_TOKENS, QUESTION, Capital, plain_answer, plain_text
from tests.e2e.service import Service

pytestmark = pytest.mark.clients


@tool
def get_weather(city: str) -> str:
    """The weather in a city."""
    return f"It is sunny in {city}."


def chat(service: Service, max_tokens: int = NUM_TOKENS) -> ChatOpenAI:
    return ChatOpenAI(
        model=MODEL, base_url=f"{service.url}/v1", api_key="unused", temperature=0, max_tokens=max_tokens, max_retries=0
    )


def test_invoke(service: Service) -> None:
    answer = chat(service).invoke(QUESTION)
    expected = plain_answer(service)
    assert answer.content == expected["choices"][0]["message"]["content"]
    assert answer.response_metadata["finish_reason"] == "stop"
    assert answer.response_metadata["model_name"] == MODEL
    assert answer.usage_metadata is not None
    assert answer.usage_metadata["input_tokens"] == expected["usage"]["prompt_tokens"]
    assert answer.usage_metadata["output_tokens"] == expected["usage"]["completion_tokens"]


def test_stream(service: Service) -> None:
    chunks = list(chat(service).stream(QUESTION, stream_usage=True))
    assert len(chunks) > 2
    whole = chunks[0]
    for chunk in chunks[1:]:
        whole += chunk
    assert whole.content == plain_text(service)
    assert whole.response_metadata["finish_reason"] == "stop"
    assert whole.usage_metadata is not None
    assert whole.usage_metadata["total_tokens"] == plain_answer(service)["usage"]["total_tokens"]


def test_batch(service: Service) -> None:
    questions = [QUESTION, "What is the capital of Japan?"]
    answers = chat(service).batch(list(questions))
    for question, answer in zip(questions, answers, strict=True):
        assert answer.content == plain_text(service, messages=[{"role": "user", "content": question}])


async def test_ainvoke(service: Service) -> None:
    assert (await chat(service).ainvoke(QUESTION)).content == plain_text(service)


@pytest.mark.parametrize("forced", ["get_weather", "required", "any"])
def test_forced_tool(service: Service, forced: str) -> None:
    model = chat(service, 60).bind_tools([get_weather], tool_choice=forced)
    answer = model.invoke("What is the weather in Paris?")
    [call] = answer.tool_calls
    assert call["name"] == "get_weather"
    assert set(call["args"]) == {"city"}
    assert call["args"]["city"]
    assert call["id"]
    assert get_weather.invoke(call).tool_call_id == call["id"]


def test_streamed_tool_call(service: Service) -> None:
    model = chat(service, 60).bind_tools([get_weather], tool_choice="get_weather")
    chunks = list(model.stream("What is the weather in Paris?"))
    whole = chunks[0]
    for chunk in chunks[1:]:
        whole += chunk
    [streamed] = whole.tool_calls
    [at_once] = model.invoke("What is the weather in Paris?").tool_calls
    assert (streamed["name"], streamed["args"]) == (at_once["name"], at_once["args"])


def test_answer_to_a_tool_call(service: Service) -> None:
    model = chat(service, 60).bind_tools([get_weather], tool_choice="get_weather")
    question = "What is the weather in Paris?"
    call = model.invoke(question)
    answer = chat(service).invoke([("user", question), call, get_weather.invoke(call.tool_calls[0])])
    assert answer.content


@pytest.mark.parametrize("method", ["json_schema", "function_calling"])
def test_structured_output(service: Service, method: str) -> None:
    model = chat(service, 60).with_structured_output(Capital, method=method, include_raw=True)
    found = model.invoke(QUESTION)
    assert isinstance(found, dict)
    assert found["parsing_error"] is None
    assert isinstance(found["parsed"], Capital)
    assert bool(found["raw"].tool_calls) == (method == "function_calling")
