"""Log lines: one for each request, nothing private in them, and nothing a client can forge."""

from __future__ import annotations

import logging
import sys

import httpx
import pytest

from vfastml.utils.logging import OneLineFormatter, configure_logging


def formatted(message: str, *arguments: object) -> str:
    return OneLineFormatter().format(logging.LogRecord("vfastml.x", logging.INFO, "f", 1, message, arguments, None))


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
        configure_logging("warning")
        assert logger.level == logging.WARNING
    finally:
        logger.setLevel(before)


async def test_one_line_for_each_request(client: httpx.AsyncClient, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG, "vfastml"):
        await client.post("/v1/completions?key=secret", json={"prompt": "private words"})
        await client.get("/livez")
    request, probe = caplog.records
    assert request.levelno == logging.INFO
    assert request.getMessage().startswith("POST /v1/completions 200 ")
    assert probe.levelno == logging.DEBUG
    assert "secret" not in caplog.text
    assert "private" not in caplog.text
