"""What the values of flags may be. Each function takes the text, and raises ArgumentTypeError with what is expected."""

from __future__ import annotations

import json
import math
from argparse import ArgumentTypeError
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit

from vfastml.entrypoints.keys.api_key import checked_key
from vfastml.text_engine.engine_config import parse_gpu_memory, parse_memory
from vfastml.utils.logging import checked_level

_T = TypeVar("_T")


def text_file(path: str) -> str:
    """What the file holds."""
    try:
        return Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ArgumentTypeError(f"{path!r} cannot be read as text: {error}") from error


def port(text: str) -> int:
    """A port; 0 takes a free one."""
    if not (_is_count(text) and int(text) < 1 << 16):
        raise ArgumentTypeError("a port is a number between 0 and 65535")
    return int(text)


def positive(text: str) -> int:
    """A count of at least 1."""
    if not (_is_count(text) and int(text) > 0):
        raise ArgumentTypeError("must be a whole number, at least 1")
    return int(text)


def not_negative(text: str) -> int:
    """A count that may be 0."""
    if not _is_count(text):
        raise ArgumentTypeError("must be a whole number, at least 0")
    return int(text)


def weight(text: str) -> float:
    """Of a share beside others."""
    value = _number(text)
    if not 0 < value <= 1000:
        raise ArgumentTypeError("a weight is a number more than 0, at most 1000")
    return value


def names(text: str) -> list[str]:
    """One or more, with commas between."""
    found = [name.strip() for name in text.split(",")]
    if not all(found):
        raise ArgumentTypeError("expected one or more names, with commas between")
    return found


def seconds(text: str) -> float:
    """A span of time; not infinite."""
    value = _number(text)
    if not 0 <= value < math.inf:
        raise ArgumentTypeError("seconds are a number that must not be negative")
    return value


def time_limit(text: str) -> float:
    """A span of time in seconds; not nothing, not infinite."""
    value = _number(text)
    if not 0 < value < math.inf:
        raise ArgumentTypeError("seconds are a number that must be more than 0")
    return value


def milliseconds(text: str) -> float:
    """A span of time; not nothing, not infinite."""
    value = _number(text)
    if not 0 < value < math.inf:
        raise ArgumentTypeError("milliseconds are a number that must be more than 0")
    return value


def temperature(text: str) -> float:
    """0, which is greedy, to 2."""
    value = _number(text)
    if not 0 <= value <= 2:
        raise ArgumentTypeError("must be a number between 0 and 2")
    return value


def share(text: str) -> float:
    """0 to 1."""
    value = _number(text)
    if not 0 <= value <= 1:
        raise ArgumentTypeError("must be a number between 0 and 1")
    return value


def memory(text: str) -> int:
    """Bytes."""
    return _told(parse_memory, text)


def gpu_memory(text: str) -> float:
    """Up to 1 a share of a GPU, else bytes."""
    return _told(parse_gpu_memory, text)


def log_level(text: str) -> str:
    """One of the log levels."""
    return _told(checked_level, text)


def json_object(text: str) -> dict[str, Any]:
    """A JSON object."""
    try:
        value = json.loads(text)
    except ValueError as error:
        raise ArgumentTypeError(f"is no JSON ({error}): expected an object such as '{{\"top_p\": 0.9}}'") from error
    if not isinstance(value, dict):
        raise ArgumentTypeError("must be a JSON object, such as '{\"top_p\": 0.9}'")
    return value


def api_key(text: str) -> str:
    """A key, which no message ever shows."""
    return _told(checked_key, text)


def url(text: str) -> str:
    """Where a service answers, without `/v1` or a slash at its end."""
    return _url(text, "http://127.0.0.1:8080")


def admin_url(text: str) -> str:
    """Where the admin listener of a gateway answers."""
    return _url(text, "http://127.0.0.1:8081")


def _url(text: str, example: str) -> str:
    try:
        parts = urlsplit(text)
        ok = parts.scheme in ("http", "https") and bool((parts.hostname or "").encode("idna")) and parts.port != 0
    except ValueError:
        ok = False
    if not ok or parts.query or parts.fragment or not text.isprintable():
        raise ArgumentTypeError(f"expected http://HOST:PORT or https://HOST, such as {example}")
    return text.rstrip("/").removesuffix("/v1").rstrip("/")


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return math.nan


def _is_count(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) < 20


def _told(parse: Callable[[str], _T], text: str) -> _T:
    """Of a parser whose ValueError is a sentence for the operator already."""
    try:
        return parse(text)
    except ValueError as error:
        raise ArgumentTypeError(str(error)) from error
