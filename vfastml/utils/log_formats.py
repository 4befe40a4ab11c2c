"""How a log record becomes a line: as text for people, as JSON for machines. Neither can be broken or forged by what a
client has sent."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import msgspec

from vfastml.utils.log_fields import LOG_FIELDS

_CONTROLS = (*range(32), 127, *range(128, 160))
_LINE_ENDS = (0x2028, 0x2029)
_DIRECTIONS = (*range(0x202A, 0x202F), *range(0x2066, 0x206A))
"""They make a terminal show text in another order than it has."""
_UNSAFE = (*_CONTROLS, *_LINE_ENDS, *_DIRECTIONS)

ESCAPED = {code: f"\\x{code:02x}" for code in _UNSAFE}
"""For str.translate: control characters and line ends, written out."""
_JSON_ESCAPED = {code: f"\\u{code:04x}" for code in _UNSAFE}
"""The same, as JSON strings have them: what reads the line gets the characters back."""

MAX_TEXT_CHARS = 8192
"""Of a message, or of a traceback, of which the end is kept: there the error is."""
MAX_FIELD_CHARS = 512
_BESIDE_THE_ERROR = "    "


class OneLineFormatter(logging.Formatter):
    """Escapes control characters in the message, so that text sent by a client cannot forge a line or drive a terminal.
    A traceback keeps its lines, each with blanks before it, as the error in it may have a client's words."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)-7s %(name)s: %(message)s")

    def formatMessage(self, record: logging.LogRecord) -> str:
        record.message = _cut(record.message, MAX_TEXT_CHARS)
        return super().formatMessage(record).translate(ESCAPED)

    def formatException(self, ei: Any) -> str:
        lines = _cut_before(super().formatException(ei), MAX_TEXT_CHARS).split("\n")
        return "\n".join(_BESIDE_THE_ERROR + line.translate(ESCAPED) for line in lines)


class JsonFormatter(logging.Formatter):
    """One object in a line: `time` (RFC 3339, UTC), `level`, `logger`, `message`, `process`, `pid`, the fields of the
    task (see log_fields.py) and those of the record's `fields`; `exception` where there is one. `process` is what this
    process does."""

    def __init__(self, process: str) -> None:
        super().__init__()
        self._process = {"process": process, "pid": os.getpid()}

    def format(self, record: logging.LogRecord) -> str:
        own: Mapping[str, Any] = getattr(record, "fields", {})
        line = {
            "time": _rfc3339(record.created),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": _cut(record.getMessage(), MAX_TEXT_CHARS),
            **self._process,
            **{name: _bounded(value) for name, value in {**LOG_FIELDS.get(), **own}.items()},
        }
        if record.exc_info:
            line["exception"] = _cut_before(self.formatException(record.exc_info), MAX_TEXT_CHARS)
        return _encoded(line)


def _rfc3339(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _encoded(line: dict[str, Any]) -> str:
    try:
        text = msgspec.json.encode(line).decode()
    except UnicodeEncodeError:  # half of a surrogate pair, which UTF-8 does not have
        text = msgspec.json.encode({name: _without_surrogates(value) for name, value in line.items()}).decode()
    return text.translate(_JSON_ESCAPED)


def _without_surrogates(value: Any) -> Any:
    return value.encode(errors="backslashreplace").decode() if isinstance(value, str) else value


def _bounded(value: Any) -> Any:
    return _cut(value, MAX_FIELD_CHARS) if isinstance(value, str) else value


def _cut(text: str, longest: int) -> str:
    return text if len(text) <= longest else f"{text[:longest]}... ({len(text) - longest} characters more)"


def _cut_before(text: str, longest: int) -> str:
    return text if len(text) <= longest else f"({len(text) - longest} characters more) ...{text[-longest:]}"
