"""One shape for all errors, the right status, and headers that say whether to try again."""

from __future__ import annotations

import logging
from datetime import date
from typing import Annotated, Any, Literal
from uuid import UUID

import httpx
import pytest
from fastapi import HTTPException
from pydantic import BaseModel, ConfigDict, Field, HttpUrl, field_validator

from tests.entrypoints.conftest import client_of
from tests.entrypoints.fake_dispatch_engine import FakeDispatchEngine, fail_with
from vfastml import errors
from vfastml.entrypoints.api_server import Gateway


def assert_envelope(response: httpx.Response, status: int, **expected: Any) -> None:
    error = response.json()["error"]
    assert response.status_code == status
    assert set(response.json()) == {"error"}
    assert set(error) == {"message", "type", "param", "code"}
    assert response.headers["x-request-id"]
    for name, value in expected.items():
        assert error[name] == value


@pytest.mark.parametrize(
    ("error", "status", "headers"),
    [
        (errors.InvalidRequestError("m", param="p"), 400, {}),
        (errors.ModelNotFoundError("m", param="model"), 404, {}),
        (errors.RateLimitError("m"), 429, {"retry-after": "1", "retry-after-ms": "1000"}),
        (errors.RateLimitError("m", retry_after_s=2.5), 429, {"retry-after": "3", "retry-after-ms": "2500"}),
        (errors.QuotaLimitError("m"), 429, {"x-should-retry": "false"}),
        (errors.InternalServerTooBusyError("m", retry_after_s=0.2), 503, {"retry-after": "1", "retry-after-ms": "200"}),
        (errors.ServerLostError("m"), 503, {"retry-after": "1"}),
        (errors.DeadlineExceededError("m"), 504, {"x-should-retry": "false"}),
        (errors.InternalServerError("m"), 500, {}),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
async def test_errors_of_the_engine(
    client: httpx.AsyncClient,
    engine: FakeDispatchEngine,
    error: errors.VFastMLError,
    status: int,
    headers: dict[str, str],
    stream: bool,
) -> None:
    engine.script = fail_with(error)
    response = await client.post("/v1/chat/completions", json={"messages": "x", "stream": stream})
    assert_envelope(response, status, message="m", type=error.type, param=error.param, code=error.code)
    assert headers.items() <= response.headers.items()
    if not headers:
        assert not {"retry-after", "retry-after-ms", "x-should-retry"} & set(response.headers)


async def test_no_such_route(client: httpx.AsyncClient) -> None:
    assert_envelope(await client.get("/v1/nothing"), 404, type="not_found_error", code=None)


async def test_wrong_method(client: httpx.AsyncClient) -> None:
    response = await client.get("/v1/chat/completions")
    assert_envelope(response, 405, type="invalid_request_error")
    assert response.headers["allow"] == "POST"


async def test_one_failed_prompt_fails_the_call(client: httpx.AsyncClient, engine: FakeDispatchEngine) -> None:
    hello = engine.script

    async def second_fails(task: Any) -> None:
        if task.request.prompt == "bad":
            task.fail(errors.InvalidRequestError("bad", param="prompt"))
        else:
            await hello(task)

    engine.script = second_fails
    response = await client.post("/v1/completions", json={"prompt": ["good", "bad", "good"]})
    assert_envelope(response, 400, message="bad", param="prompt")


class Order(BaseModel):
    amount: int
    note: str = ""

    @field_validator("note")
    @classmethod
    def _polite(cls, note: str) -> str:
        if note == "rude":
            raise ValueError("must be polite")
        return note


class Circle(BaseModel):
    kind: Literal["circle"]
    radius: float


class Square(BaseModel):
    kind: Literal["square"]
    side: float


class Shapes(BaseModel):
    model_config = ConfigDict(extra="forbid")

    shapes: list[Annotated[Circle | Square, Field(discriminator="kind")]]
    unit: Literal["cm", "in"] = "cm"
    at: UUID | date | None = None
    page: HttpUrl | None = None


@pytest.fixture
def gateway(engine: FakeDispatchEngine) -> Gateway:
    gateway = Gateway(dispatch_engine=engine)

    @gateway.app.post("/order")
    async def order(order: Order, copies: int = 1) -> dict[str, int]:
        return {"amount": order.amount * copies}

    @gateway.app.get("/teapot")
    async def teapot() -> None:
        raise HTTPException(418, {"why": "I am one"}, headers={"x-tea": "green"})

    @gateway.app.get("/unmodified")
    async def unmodified() -> None:
        raise HTTPException(304)

    @gateway.app.get("/broken")
    async def broken() -> None:
        raise RuntimeError("/secret/path leaks")

    @gateway.app.get("/own")
    async def own() -> None:
        raise errors.RateLimitError("slow down")

    @gateway.app.get("/plain/{name}")
    def plain(name: str) -> None:
        raise getattr(errors, name)

    @gateway.app.get("/status/{status}")
    def give_status(status: int, detail: str | None = None) -> None:
        raise HTTPException(status, detail)

    @gateway.app.post("/shapes")
    def shapes(shapes: Shapes) -> int:
        return len(shapes.shapes)

    return gateway


@pytest.mark.parametrize(
    ("body", "param"),
    [
        (b'{"amount": "many"}', "amount"),
        (b'{"amount": 1, "note": "rude"}', "note"),
        (b"{}", "amount"),
        (b"[]", None),
        (b"nonsense", None),
        (b'{"amount": NaN}', "amount"),
        (b'{"amount": Infinity}', "amount"),
        (b'{"amount": ' + b"9" * 5000 + b"}", None),
        (b"[" * 100_000, None),
        (b'{"amount": "\xff"}', None),
        (b'{"amount": "\\ud800"}', "amount"),
        (b"", None),
    ],
)
async def test_bodies_of_user_routes(gateway: Gateway, body: bytes, param: str | None) -> None:
    async with client_of(gateway) as client:
        response = await client.post("/order", content=body, headers={"content-type": "application/json"})
    assert_envelope(response, 400, type="invalid_request_error", param=param)


@pytest.mark.rule("S10")
@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"shapes": "s3cret"}, "shapes"),
        ({"shapes": ["s3cret"]}, "shapes[0]"),
        ({"shapes": [{"kind": "s3cret"}]}, "shapes[0]"),
        ({"shapes": [{"kind": "circle", "radius": "s3cret"}]}, "shapes[0].circle.radius"),
        ({"shapes": [{"kind": "circle"}]}, "shapes[0].circle.radius"),
        ({"unit": "s3cret"}, "unit"),
        ({"at": "s3cret"}, "at.uuid"),
        ({"page": "s3cret"}, "page"),
        ({"page": "https://s3cret:s3cret"}, "page"),
        ({"note": "s3cret"}, "note"),
    ],
)
async def test_no_value_is_echoed(gateway: Gateway, fields: dict[str, Any], param: str) -> None:
    async with client_of(gateway) as client:
        response = await client.post("/shapes", json={"shapes": [], **fields})
    assert_envelope(response, 400, type="invalid_request_error", param=param)
    assert "s3cret" not in response.text


@pytest.mark.parametrize("content_type", [None, "text/plain", "application/x-www-form-urlencoded"])
async def test_json_that_is_not_sent_as_json(gateway: Gateway, content_type: str | None) -> None:
    headers = {} if content_type is None else {"content-type": content_type}
    async with client_of(gateway) as client:
        response = await client.post("/order", content=b'{"amount": 1}', headers=headers)
    assert_envelope(response, 400, param=None)
    assert "Content-Type: application/json" in response.json()["error"]["message"]


@pytest.mark.parametrize("name", [name for name in vars(errors) if name.endswith("Error")])
async def test_every_error_can_be_raised_without_a_message(gateway: Gateway, name: str) -> None:
    error = getattr(errors, name)()
    assert error.message == str(error) == type(error).default_message
    assert error.message.endswith(".")
    assert error.status_code == error.status
    async with client_of(gateway) as client:
        response = await client.get(f"/plain/{name}")
    assert_envelope(response, error.status, message=error.message, type=error.type, code=error.code)


def test_every_error_has_a_sentence_of_its_own() -> None:
    classes = [errors.VFastMLError, *errors._BY_KIND.values()]
    assert len({cls.default_message for cls in classes}) == len(errors._BY_KIND)
    assert errors.InternalServerError("mine").message == "mine"
    with pytest.raises(AttributeError):
        errors.InternalServerError().status_code = 200  # type: ignore[misc]


@pytest.mark.parametrize(
    ("status", "detail", "message"),
    [
        (401, None, "A valid API key is required."),
        (403, None, "Forbidden."),
        (404, None, "There is no such route."),
        (404, "No such poem.", "No such poem."),
        (409, "Taken", "Taken"),
        (499, "gone", "gone"),
        (520, "odd", "odd"),
        (500, None, "Internal Server Error."),
        (503, None, "The server is busy: try again a little later."),
    ],
)
async def test_statuses_of_http_exceptions(gateway: Gateway, status: int, detail: str | None, message: str) -> None:
    async with client_of(gateway) as client:
        response = await client.get(f"/status/{status}", params={} if detail is None else {"detail": detail})
    assert_envelope(response, status, message=message)


async def test_messages_of_validators_are_shown(gateway: Gateway) -> None:
    async with client_of(gateway) as client:
        response = await client.post("/order", json={"amount": 1, "note": "rude"})
    assert_envelope(response, 400, message="Invalid 'note': must be polite.")


async def test_query_parameters_of_user_routes(gateway: Gateway) -> None:
    async with client_of(gateway) as client:
        assert_envelope(await client.post("/order?copies=x", json={"amount": 1}), 400, param="copies")


async def test_http_exceptions_of_user_routes(gateway: Gateway) -> None:
    async with client_of(gateway) as client:
        response = await client.get("/teapot")
        assert_envelope(response, 418, message='{"why":"I am one"}', type="invalid_request_error")
        assert response.headers["x-tea"] == "green"
        assert (await client.get("/unmodified")).content == b""
        assert_envelope(await client.get("/own"), 429, message="slow down")


@pytest.mark.rule("S10")
async def test_unforeseen_exceptions_are_logged_and_not_shown(
    gateway: Gateway, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.ERROR, "vfastml"):
        async with client_of(gateway) as client:
            response = await client.get("/broken")
    assert_envelope(response, 500, type="server_error", code="internal_error")
    assert "leaks" not in response.text
    assert "/secret/path leaks" in caplog.text


@pytest.mark.rule("S10")
async def test_request_ids(client: httpx.AsyncClient) -> None:
    async def id_for(sent: str) -> str:
        return str((await client.get("/version", headers={"x-request-id": sent})).headers["x-request-id"])

    assert await id_for("mine-1.2_3") == "mine-1.2_3"
    for unacceptable in ("x" * 65, "a b", "a/b", ""):
        assert (await id_for(unacceptable)).startswith("req-")
