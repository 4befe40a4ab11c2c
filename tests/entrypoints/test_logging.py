"""Log lines: one for each request, nothing private in them, and nothing a client can forge."""

from __future__ import annotations

import logging
import re
import sys

import pytest
from starlette.types import Receive, Scope, Send

from tests.entrypoints.conftest import client_of
from tests.entrypoints.fake_dispatch_engine import FakeDispatchEngine
from vfastml.entrypoints.access_log import AccessLogMiddleware
from vfastml.entrypoints.api_server import Gateway
from vfastml.entrypoints.gateway_config import GatewayConfig
from vfastml.utils.log_formats import OneLineFormatter
from vfastml.utils.logging import checked_level, configure_logging


def formatted(message: str, *arguments: object) -> str:
    return OneLineFormatter().format(logging.LogRecord("vfastml.x", logging.INFO, "f", 1, message, arguments, None))


@pytest.mark.rule("S10")
def test_control_characters_are_escaped() -> None:
    line = formatted("path %s", "a\r\nINFO forged \x1b[2J\x00\x85\u2028end é")
    assert line.isprintable()
    assert "a\\x0d\\x0aINFO forged \\x1b[2J\\x00\\x85\\x2028end é" in line


def test_tracebacks_keep_their_lines() -> None:
    try:
        raise ValueError("x")
    except ValueError:
        record = logging.LogRecord("vfastml", logging.ERROR, "f", 1, "oops", (), sys.exc_info())
    assert len(OneLineFormatter().format(record).splitlines()) > 3


def test_unknown_levels_are_refused() -> None:
    with pytest.raises(ValueError, match="loud"):
        configure_logging("loud")


def test_levels() -> None:
    logger = logging.getLogger("vfastml")
    before = logger.level
    try:
        configure_logging("DEBUG")
        assert logger.level == logging.DEBUG
        configure_logging("warn")
        assert logger.level == logging.WARNING
    finally:
        logger.setLevel(before)


@pytest.mark.parametrize("name", ["warn", "WARN", "Warning", "warning"])
def test_warn_is_warning(name: str) -> None:
    assert checked_level(name) == "warning"


async def lines(engine: FakeDispatchEngine, caplog: pytest.LogCaptureFixture, access_log: str) -> list[tuple[int, str]]:
    """Level, and what goes before the time, for one request of each kind."""
    engine.ready = False
    async with client_of(Gateway(GatewayConfig(access_log=access_log), engine)) as client:
        with caplog.at_level(logging.DEBUG, "vfastml"):
            await client.post("/v1/completions?key=secret", json={"prompt": "private words"})
            await client.get("/none?key=secret")
            await client.get("/livez")
            await client.get("/readyz")
    assert "secret" not in caplog.text
    assert "private" not in caplog.text
    return [(record.levelno, record.getMessage().split(" in ")[0]) for record in caplog.records]


async def test_all_requests(engine: FakeDispatchEngine, caplog: pytest.LogCaptureFixture) -> None:
    assert await lines(engine, caplog, "all") == [
        (logging.INFO, "POST /v1/completions 200"),
        (logging.INFO, "GET /none 404"),
        (logging.DEBUG, "GET /livez 200"),
        (logging.DEBUG, "GET /readyz 503"),
    ]


async def test_errors_only(engine: FakeDispatchEngine, caplog: pytest.LogCaptureFixture) -> None:
    assert await lines(engine, caplog, "errors") == [(logging.INFO, "GET /none 404")]
    assert GatewayConfig().access_log == "errors"


async def test_no_requests(engine: FakeDispatchEngine, caplog: pytest.LogCaptureFixture) -> None:
    assert await lines(engine, caplog, "off") == []


@pytest.mark.parametrize(("access_log", "expected"), [("all", 1), ("errors", 0), ("off", 0)])
async def test_a_client_that_went_away_is_no_error(
    caplog: pytest.LogCaptureFixture, access_log: str, expected: int
) -> None:
    async def nobody_is_told(scope: Scope, receive: Receive, send: Send) -> None:
        """Ends without an answer."""

    app = AccessLogMiddleware(nobody_is_told, access_log)
    scope = {"type": "http", "method": "GET", "path": "/x", "headers": []}
    with caplog.at_level(logging.INFO, "vfastml"):
        await app(scope, receive=nobody_is_told, send=nobody_is_told)  # type: ignore[arg-type]
    assert [message.split(" in ")[0] for message in caplog.messages] == ["GET /x 499"] * expected


async def test_a_line_has_the_time_and_the_id(engine: FakeDispatchEngine, caplog: pytest.LogCaptureFixture) -> None:
    async with client_of(Gateway(GatewayConfig(access_log="errors"), engine)) as client:
        with caplog.at_level(logging.INFO, "vfastml"):
            await client.get("/none", headers={"x-request-id": "mine"})
    assert re.fullmatch(r"GET /none 404 in \d+\.\d ms, mine", caplog.messages[0])


def test_an_unknown_kind_of_access_log_is_refused() -> None:
    with pytest.raises(ValueError, match="all, errors, off"):
        GatewayConfig(access_log="some")
