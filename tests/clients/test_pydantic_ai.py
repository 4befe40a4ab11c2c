"""pydantic-ai's Agent: typed output, by a forced tool and by a schema, and a tool of the user's."""

from __future__ import annotations

import pytest
from pydantic_ai import Agent, NativeOutput, RunContext
from pydantic_ai.models.openai import OpenAIChatModel
from pydantic_ai.providers.openai import OpenAIProvider
from pydantic_ai.settings import ModelSettings

from tests.clients.plain_answer import MODEL, NUM_TOKENS, QUESTION, Capital, plain_answer, plain_text
from tests.e2e.service import Service

pytestmark = pytest.mark.clients


def model(service: Service) -> OpenAIChatModel:
    return OpenAIChatModel(MODEL, provider=OpenAIProvider(base_url=f"{service.url}/v1", api_key="unused"))


def settings(max_tokens: int = NUM_TOKENS) -> ModelSettings:
    return ModelSettings(temperature=0, max_tokens=max_tokens)


def test_run(service: Service) -> None:
    result = Agent(model(service), model_settings=settings()).run_sync(QUESTION)
    assert result.output == plain_text(service)
    assert result.response.finish_reason == "stop"
    assert result.usage.output_tokens == plain_answer(service)["usage"]["completion_tokens"]


async def test_stream(service: Service) -> None:
    async with Agent(model(service), model_settings=settings()).run_stream(QUESTION) as result:
        deltas = [delta async for delta in result.stream_text(delta=True, debounce_by=None)]
    assert len(deltas) > 1
    assert "".join(deltas) == plain_text(service)


def test_native_output(service: Service) -> None:
    agent = Agent(model(service), output_type=NativeOutput(Capital), model_settings=settings(40))
    assert isinstance(agent.run_sync(QUESTION).output, Capital)


def test_tool_output(service: Service) -> None:
    agent = Agent(model(service), output_type=Capital, model_settings=settings(60))
    result = agent.run_sync(QUESTION)
    assert isinstance(result.output, Capital)
    assert result.response.tool_calls[0].tool_name == "final_result"


def test_function_tool(service: Service) -> None:
    cities = []

    def get_weather(city: str) -> str:
        """The weather in a city."""
        cities.append(city)
        return f"It is sunny in {city}."

    def first_the_tool(context: RunContext[None]) -> ModelSettings:
        forced = context.run_step == 1
        return ModelSettings(temperature=0, max_tokens=60, tool_choice=["get_weather"] if forced else "none")

    agent = Agent(model(service), tools=[get_weather], model_settings=first_the_tool)
    result = agent.run_sync("What is the weather in Paris?")
    assert result.output
    [city] = cities
    assert city
    assert result.usage.requests == 2
