"""The official client against a real server."""

from __future__ import annotations

from collections.abc import Iterator

import openai
import pytest

from tests.entrypoints.conftest import LiveGateway, Serve, eventually
from tests.entrypoints.fake_dispatch_engine import FakeDispatchEngine, fail_with, never_end
from vfastml import errors
from vfastml.entrypoints.api_server import Gateway
from vfastml.entrypoints.gateway_config import GatewayConfig


@pytest.fixture
def official(live: LiveGateway) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{live.url}/v1", api_key="any", max_retries=0, timeout=10) as client:
        yield client


HI: list[dict[str, str]] = [{"role": "user", "content": "hi"}]


def test_chat(official: openai.OpenAI) -> None:
    reply = official.chat.completions.create(model="tiny", messages=HI, n=2)  # type: ignore[call-overload]
    assert [choice.message.content for choice in reply.choices] == ["Hello world"] * 2
    assert reply.choices[0].finish_reason == "stop"
    assert reply.usage.total_tokens == 9
    assert reply.usage.prompt_tokens_details.cached_tokens == 2
    assert reply._request_id.startswith("req-")


def test_streamed_chat(official: openai.OpenAI) -> None:
    with official.chat.completions.stream(model="tiny", messages=HI) as stream:  # type: ignore[arg-type]
        kinds = [event.type for event in stream]
        final = stream.get_final_completion()
    assert "content.delta" in kinds
    assert final.choices[0].message.content == "Hello world"
    assert final.choices[0].message.role == "assistant"


def test_completions(official: openai.OpenAI) -> None:
    reply = official.completions.create(model="tiny", prompt=["a", "b"])
    assert [(choice.index, choice.text) for choice in reply.choices] == [(0, "Hello world"), (1, "Hello world")]
    pieces = official.completions.create(model="tiny", prompt="a", stream=True, stream_options={"include_usage": True})
    *texts, usage = list(pieces)
    assert "".join(chunk.choices[0].text for chunk in texts) == "Hello world"
    assert usage.usage is not None
    assert usage.usage.total_tokens == 7


def test_models(official: openai.OpenAI) -> None:
    assert [model.id for model in official.models.list()] == ["tiny", "tiny-alias"]
    assert official.models.retrieve("tiny").created == 1700000000
    with pytest.raises(openai.NotFoundError):
        official.models.retrieve("other")


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (errors.InvalidRequestError("m"), openai.BadRequestError),
        (errors.AuthenticationError("m"), openai.AuthenticationError),
        (errors.ModelNotFoundError("m"), openai.NotFoundError),
        (errors.RateLimitError("m"), openai.RateLimitError),
        (errors.InternalServerTooBusyError("m"), openai.InternalServerError),
        (errors.DeadlineExceededError("m"), openai.InternalServerError),
    ],
)
def test_exceptions(
    official: openai.OpenAI,
    engine: FakeDispatchEngine,
    error: errors.VFastMLError,
    expected: type[openai.APIStatusError],
) -> None:
    engine.script = fail_with(error)
    with pytest.raises(expected) as caught:
        official.completions.create(model="tiny", prompt="x")
    assert caught.value.code == error.code
    assert caught.value.type == error.type
    assert "m" in caught.value.message


def test_failure_in_mid_stream(official: openai.OpenAI, engine: FakeDispatchEngine) -> None:
    engine.script = fail_with(errors.ServerLostError("gone"), after=["Hel"])
    stream = official.chat.completions.create(model="tiny", messages=HI, stream=True)  # type: ignore[call-overload]
    received: list[str] = []
    with pytest.raises(openai.APIError, match="gone"):
        received.extend(chunk.choices[0].delta.content for chunk in stream)
    assert "".join(received) == "Hel"


@pytest.mark.parametrize(("error", "calls"), [("busy", 2), ("deadline", 1)])
def test_retries_are_steered(live: LiveGateway, engine: FakeDispatchEngine, error: str, calls: int) -> None:
    busy = errors.InternalServerTooBusyError("m", retry_after_s=0.01)
    engine.script = fail_with(busy if error == "busy" else errors.DeadlineExceededError("m"))
    client = openai.OpenAI(base_url=f"{live.url}/v1", api_key="any", max_retries=1, timeout=10)
    with client, pytest.raises(openai.InternalServerError):
        client.completions.create(model="tiny", prompt="x")
    assert len(engine.requests) == calls


def test_closing_a_stream_cancels(official: openai.OpenAI, engine: FakeDispatchEngine) -> None:
    engine.script = never_end
    stream = official.chat.completions.create(model="tiny", messages=HI, stream=True)  # type: ignore[call-overload]
    assert next(iter(stream)).choices[0].delta.role == "assistant"
    stream.close()
    eventually(lambda: len(engine.cancelled) == 1)


def test_keys(serve: Serve, engine: FakeDispatchEngine) -> None:
    url = f"{serve(Gateway(GatewayConfig(api_keys=('right',)), engine)).url}/v1"
    with openai.OpenAI(base_url=url, api_key="right") as client:
        assert client.completions.create(model="tiny", prompt="x").choices
    with openai.OpenAI(base_url=url, api_key="wrong") as client, pytest.raises(openai.AuthenticationError):
        client.models.list()
