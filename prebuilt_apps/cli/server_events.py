"""Server-sent events as they are received: bytes to lines, lines to events, events to the text of a chat answer."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from typing import Any

from prebuilt_apps.cli.service_error import ServiceError

_DONE = "[DONE]"


def answer_text(chunks: Iterable[bytes]) -> Iterator[str]:
    """The pieces of an answer's first choice, as they come. Raises ServiceError with the server's own sentence when it
    fails on the way, or when the stream ends without saying that the answer does."""
    for data in _events(_lines(chunks)):
        if data == _DONE:
            return
        if text := _text_of(_parsed(data)):
            yield text
    raise ServiceError("The connection ended before the answer did.")


def error_sentence(body: Any) -> str | None:
    """What the body of an error says; None if it has another form."""
    error = body.get("error") if isinstance(body, dict) else None
    message = error.get("message") if isinstance(error, dict) else error
    return message if isinstance(message, str) and message else None


def _lines(chunks: Iterable[bytes]) -> Iterator[str]:
    # Split as bytes: text may hold characters that are line ends to Python alone.
    rest = b""
    for chunk in chunks:
        *lines, rest = (rest + chunk).split(b"\n")
        for line in lines:
            yield line.removesuffix(b"\r").decode("utf-8", "replace")


def _events(lines: Iterable[str]) -> Iterator[str]:
    """The data of each event. Comments and other fields are passed over."""
    data: list[str] = []
    for line in lines:
        field, _, value = line.partition(":")
        if field == "data":
            data.append(value.removeprefix(" "))
        elif not line and data:
            yield "\n".join(data)
            data = []


def _parsed(data: str) -> dict[str, Any]:
    try:
        body = json.loads(data)
    except ValueError as error:
        raise ServiceError("The server sent something that is no part of an answer.") from error
    if not isinstance(body, dict):
        raise ServiceError("The server sent something that is no part of an answer.")
    if "error" in body:
        raise ServiceError(error_sentence(body) or "The server failed in the middle of the answer.")
    return body


def _text_of(body: dict[str, Any]) -> str | None:
    choices = body.get("choices")
    delta = choices[0].get("delta") if isinstance(choices, list) and choices and isinstance(choices[0], dict) else None
    content = delta.get("content") if isinstance(delta, dict) else None
    return content if isinstance(content, str) else None
