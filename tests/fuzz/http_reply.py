"""What a server answers on a raw connection, and what may not be in it."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from typing import Any

import httptools

_LEAKS = re.compile(rb'Traceback|site-packages|0x[0-9a-f]{6}|/home/|/usr/|\.py"|File \\"|tcp://')
_ENVELOPES = ({"message", "type", "param", "code"}, {"type", "message"})
"""OpenAI's, and Anthropic's."""
_BUSY = 503


@dataclass(slots=True)
class HttpReply:
    """One response; `is_whole` once it has ended."""

    status: int = 0
    body: bytearray = field(default_factory=bytearray)
    is_whole: bool = False

    def problem(self) -> str | None:
        """What is wrong with it, whatever was asked."""
        if self.status >= 500 and self.status != _BUSY:
            return f"status {self.status}"
        if b'"code":"internal_error"' in self.body:
            return "an internal error in a stream"
        if self.status < 400:
            return None
        if _LEAKS.search(self.body):
            return f"status {self.status} that tells of the inside"
        return None if self._is_refusal() else f"status {self.status} without the envelope"

    def _is_refusal(self) -> bool:
        body = bytes(self.body)
        if not self.is_whole:
            return True
        return _is_envelope(body) or (self.status == _BUSY and b'"status"' in body)  # a probe


class HttpReplies:
    """All that comes back on one connection, fed as it arrives. Raises httptools.HttpParserError for what is none."""

    def __init__(self) -> None:
        self.replies: list[HttpReply] = []
        self.stays_open = False
        self._parser = httptools.HttpResponseParser(self)

    @property
    def is_whole(self) -> bool:
        """The last of them has ended. A 100 is only the start."""
        return bool(self.replies) and self.replies[-1].is_whole and self.replies[-1].status >= 200

    def feed(self, data: bytes) -> None:
        self._parser.feed_data(data)

    def on_message_begin(self) -> None:
        self.replies.append(HttpReply())

    def on_headers_complete(self) -> None:
        self.replies[-1].status = self._parser.get_status_code()

    def on_body(self, data: bytes) -> None:
        self.replies[-1].body += data

    def on_message_complete(self) -> None:
        self.replies[-1].is_whole = True
        self.stays_open = self._parser.should_keep_alive()


def _is_envelope(body: bytes) -> bool:
    try:
        value: Any = json.loads(body)
    except ValueError:
        return False
    return isinstance(value, dict) and isinstance(value.get("error"), dict) and set(value["error"]) in _ENVELOPES
