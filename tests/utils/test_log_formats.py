"""Lines of both kinds hold whatever is put into them, and stay one line."""

from __future__ import annotations

import json
import logging
import os
import re
import sys
from typing import Any

import pytest

from vfastml.utils.log_fields import LOG_FIELDS
from vfastml.utils.log_formats import MAX_FIELD_CHARS, MAX_TEXT_CHARS, JsonFormatter, OneLineFormatter

HOSTILE = [
    'a\r\n{"level": "critical", "message": "forged"}',
    "2026-01-01 00:00:00,000 ERROR   vfastml: forged\n2026-01-01 00:00:00,000 ERROR   vfastml: forged",
    "\x1b[2J\x1b]0;title\x07",
    "a\u2028b\u2029c\x85d\x0be\x0cf\x1cg",
    "\x9b31m \x7f \x00",
    "left\u202etfel \u2066x\u2069",
    'quotes " and \\ and \\n',
    "half a pair: \ud800",
    "plain é 漢字 🙂",
]


def record(message: str, *arguments: object, **more: Any) -> logging.LogRecord:
    made = logging.LogRecord("vfastml.x", logging.WARNING, "f", 1, message, arguments, more.pop("exc_info", None))
    made.__dict__.update(more)
    return made


def json_line(made: logging.LogRecord) -> dict[str, Any]:
    line = JsonFormatter("gateway").format(made)
    assert line.splitlines() == [line]
    parsed: dict[str, Any] = json.loads(line)
    return parsed


def raised(message: str) -> Any:
    try:
        raise ValueError(message)
    except ValueError:
        return sys.exc_info()


@pytest.mark.rule("S10")
@pytest.mark.parametrize("text", HOSTILE)
def test_nothing_breaks_a_line(text: str) -> None:
    made = record("said %s", text, fields={"value": text})
    for line in (OneLineFormatter().format(made), JsonFormatter("gateway").format(made)):
        assert line.splitlines() == [line]
        assert line.replace("\ud800", "").isprintable()


@pytest.mark.rule("S10")
@pytest.mark.parametrize("text", HOSTILE)
def test_json_gives_the_text_back(text: str) -> None:
    kept = text.encode(errors="backslashreplace").decode()
    parsed = json_line(record("%s", text, fields={"value": text}))
    assert (parsed["message"], parsed["value"]) == (kept, kept)


@pytest.mark.rule("S10")
def test_long_values_are_cut() -> None:
    made = record("%s", "x" * 1_000_000, fields={"value": "y" * 1_000_000}, exc_info=raised("z" * 1_000_000))
    parsed = json_line(made)
    assert parsed["message"] == "x" * MAX_TEXT_CHARS + f"... ({1_000_000 - MAX_TEXT_CHARS} characters more)"
    assert len(parsed["value"]) < MAX_FIELD_CHARS + 50
    assert len(parsed["exception"]) < MAX_TEXT_CHARS + 50
    assert len(OneLineFormatter().format(made)) < 2 * MAX_TEXT_CHARS + 300


@pytest.mark.rule("S10")
@pytest.mark.parametrize("text", HOSTILE)
def test_the_words_of_an_error_forge_no_line(text: str) -> None:
    made = record("oops", exc_info=raised(text))
    first, *rest = OneLineFormatter().format(made).split("\n")
    assert first.endswith("WARNING vfastml.x: oops")
    assert all(line.startswith("    ") and line.splitlines() == [line] for line in rest)
    assert "ValueError: " in json_line(record("oops", exc_info=raised(text)))["exception"]


def test_what_a_line_has() -> None:
    parsed = json_line(record("%d of %s", 3, "x", fields={"status": 200, "route": None}))
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", parsed.pop("time"))
    assert parsed == {
        "level": "warning",
        "logger": "vfastml.x",
        "message": "3 of x",
        "process": "gateway",
        "pid": os.getpid(),
        "status": 200,
        "route": None,
    }


def test_fields_of_the_task_and_of_the_record() -> None:
    before = LOG_FIELDS.set({"request_id": "r1", "trace_id": "t1"})
    try:
        parsed = json_line(record("x", fields={"request_id": "r2"}))
    finally:
        LOG_FIELDS.reset(before)
    assert (parsed["request_id"], parsed["trace_id"]) == ("r2", "t1")
    assert "request_id" not in json_line(record("x"))
