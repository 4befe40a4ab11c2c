"""The Responses API, by clients that can speak it in the place of chat completions; openai-python's own tests are in
tests/e2e/test_responses_client.py."""

from __future__ import annotations

from typing import Any

import litellm
import pytest
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI
from pydantic_ai import Agent, NativeOutput
from pydantic_ai.models.openai import OpenAIResponsesModel
from pydantic_ai.providers.openai import OpenAIProvider
from pydantic_ai.settings import ModelSettings

from tests.clients.plain_answer import MODEL, NUM_TOKENS, QUESTION, Capital, plain_answer, plain_text
from tests.e2e.service import Service

pytestmark = [pytest.mark.clients, pytest.mark.filterwarnings("ignore")]


@tool
def get_weather(city: str) -> str:
    """The weather in a city."""
    return f"It is sunny in {city}."


def langchain(service: Service, max_tokens: int = NUM_TOKENS) -> ChatOpenAI:
    address = {"base_url": f"{service.url}/v1", "api_key": "unused", "max_retries": 0}
    return ChatOpenAI(model=MODEL, temperature=0, max_tokens=max_tokens, use_responses_api=True, **address)


def agent(service: Service, output_type: Any) -> Agent[None, Any]:
    provider = OpenAIProvider(base_url=f"{service.url}/v1", api_key="unused")
    settings = ModelSettings(temperature=0, max_tokens=60)
    return Agent(OpenAIResponsesModel(MODEL, provider=provider), output_type=output_type, model_settings=settings)


def test_langchain(service: Service) -> None:
    answer = langchain(service).invoke(QUESTION)
    assert answer.text == plain_text(service)
    assert answer.usage_metadata is not None
    assert answer.usage_metadata["total_tokens"] == plain_answer(service)["usage"]["total_tokens"]
    assert "".join(chunk.text for chunk in langchain(service).stream(QUESTION)) == answer.text


def test_langchain_calls_a_tool_and_answers(service: Service) -> None:
    question = "What is the weather in Paris?"
    call = langchain(service, 60).bind_tools([get_weather], tool_choice="get_weather").invoke(question)
    assert [(one["name"], set(one["args"])) for one in call.tool_calls] == [("get_weather", {"city"})]
    assert langchain(service).invoke([("user", question), call, get_weather.invoke(call.tool_calls[0])]).text


def test_langchain_structured_output(service: Service) -> None:
    model = langchain(service, 60).with_structured_output(Capital, method="json_schema")
    assert isinstance(model.invoke(QUESTION), Capital)


@pytest.mark.parametrize("output_type", [Capital, NativeOutput(Capital)], ids=["tool", "schema"])
def test_pydantic_ai(service: Service, output_type: Any) -> None:
    result = agent(service, output_type).run_sync(QUESTION)
    assert isinstance(result.output, Capital)
    assert result.usage.output_tokens > 0


async def test_pydantic_ai_stream(service: Service) -> None:
    async with agent(service, str).run_stream(QUESTION) as result:
        deltas = [delta async for delta in result.stream_text(delta=True, debounce_by=None)]
    assert len(deltas) > 1
    assert "".join(deltas) == plain_text(service)


@pytest.mark.parametrize("prefix", ["openai", "hosted_vllm"])
def test_litellm(service: Service, prefix: str) -> None:
    asked: dict[str, Any] = {"input": QUESTION, "temperature": 0, "max_output_tokens": NUM_TOKENS}
    address = {"api_base": f"{service.url}/v1", "api_key": "unused"}
    answer: Any = litellm.responses(model=f"{prefix}/{MODEL}", **address, **asked)
    assert answer.output[0].content[0].text == plain_text(service)
    assert answer.status == "completed"
    events: list[Any] = list(litellm.responses(model=f"{prefix}/{MODEL}", **address, **asked, stream=True))
    deltas = [event.delta for event in events if event.type == "response.output_text.delta"]
    assert "".join(deltas) == plain_text(service)
