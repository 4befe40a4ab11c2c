"""An OpenAI-compatible server whose every token is known, and which can misbehave in every way that is asked for."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

FIXED_PROMPT_TOKENS = 5
TOKENS_PER_WORD = 2
TOKENS_PER_CHUNK = 2
SHORT_BY = 3


@dataclass
class FakeServer:
    """What it does; the defaults are good manners, but for chunks of two tokens, cut anywhere."""

    usage: str = "stream"
    """`stream`, `whole` (only in answers that are not streamed) or `never`."""
    trouble: dict[int, str] = field(default_factory=dict)
    """By number of the stream, from 0: `error`, `cut`, `unended`, `status`, `short`, `silent` or `hang`."""
    refused_fields: frozenset[str] = frozenset()
    api_key: str | None = None
    line_end: str = "\n"
    piece: int = 7
    """Bytes written at once: events are cut into such pieces."""
    chunked: bool = True
    bodies: list[dict[str, Any]] = field(default_factory=list)
    hanging: threading.Event = field(default_factory=threading.Event)
    port: int = 0
    url: str = ""

    @property
    def streamed(self) -> list[dict[str, Any]]:
        """Bodies of streamed requests, in order."""
        return [body for body in self.bodies if body.get("stream")]

    def prompt_tokens(self, body: dict[str, Any]) -> int:
        """As `usage` counts them."""
        text = body["messages"][0]["content"] if "messages" in body else body["prompt"]
        return FIXED_PROMPT_TOKENS + TOKENS_PER_WORD * len(text.split())


@contextmanager
def serving(fake: FakeServer) -> Iterator[FakeServer]:
    """On its port, or a free one; `fake.url` says where."""
    http = ThreadingHTTPServer(("127.0.0.1", fake.port), type("Handler", (_Handler,), {"fake": fake}))
    http.daemon_threads = True
    fake.url = f"http://127.0.0.1:{http.server_address[1]}"
    thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield fake
    finally:
        http.shutdown()
        http.server_close()
        thread.join(5)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    fake: FakeServer
    _lock = threading.Lock()

    def do_GET(self) -> None:
        if not self._has_access():
            return
        if self.path == "/v1/models":
            self._json(200, {"object": "list", "data": [{"id": "fake", "object": "model", "owned_by": "nobody"}]})
        elif self.path == "/health":
            self._json(200, {})
        elif self.path == "/version":
            self._json(200, {"version": "1.2.3"})
        else:
            self._json(404, {"detail": "Not Found"})

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        if not self._has_access():
            return
        with self._lock:
            number = len(self.fake.streamed)
            self.fake.bodies.append(body)
        if self.fake.refused_fields & body.keys():
            self._json(422, {"detail": f"Unexpected fields: {sorted(self.fake.refused_fields & body.keys())}"})
        elif body["model"] != "fake":
            self._json(404, {"error": {"message": "No such model.", "type": "invalid_request_error"}})
        elif body.get("stream"):
            self._stream(body, self.fake.trouble.get(number, ""))
        else:
            choice = {"index": 0, "text": "whole", "finish_reason": "length"}
            usage = self._usage(body, body["max_tokens"]) if self.fake.usage != "never" else None
            self._json(200, {"choices": [choice], "usage": usage})

    def _stream(self, body: dict[str, Any], trouble: str) -> None:
        if trouble == "status":
            self._json(500, {"error": {"message": "out of order"}})
            return
        self.send_response(200)
        self.send_header("content-type", "text/event-stream")
        if self.fake.chunked:
            self.send_header("transfer-encoding", "chunked")
        self.end_headers()
        self.close_connection = True
        self._write_events(body, trouble)
        if self.fake.chunked and trouble != "cut":
            self.wfile.write(b"0\r\n\r\n")

    def _write_events(self, body: dict[str, Any], trouble: str) -> None:
        tokens = body["max_tokens"] - (SHORT_BY if trouble == "short" else 0)
        chat = "messages" in body
        self._write(f": a comment{self.fake.line_end * 2}")
        self._event(_choice(chat, "", None))
        for first in range(0, tokens, TOKENS_PER_CHUNK):
            if first and trouble in ("error", "cut", "unended", "hang"):
                self._break(trouble)
                return
            self._event(_choice(chat, "" if trouble == "silent" else "word ", None))
        self._event(_choice(chat, "", "stop" if trouble == "short" else "length"))
        if self.fake.usage == "stream":
            self._event({"choices": [], "usage": self._usage(body, tokens)})
        self._write(f"data:[DONE]{self.fake.line_end * 2}")

    def _break(self, trouble: str) -> None:
        if trouble == "error":
            self._event({"error": {"message": "The model broke.", "code": 500}})
        if trouble == "hang":
            self.fake.hanging.set()
            self.rfile.read(1)  # until the client goes away

    def _event(self, data: dict[str, Any]) -> None:
        self._write(f"data: {json.dumps(data)}{self.fake.line_end * 2}")

    def _write(self, text: str) -> None:
        data = text.encode()
        for start in range(0, len(data), self.fake.piece):
            piece = data[start : start + self.fake.piece]
            self.wfile.write(b"%x\r\n%b\r\n" % (len(piece), piece) if self.fake.chunked else piece)

    def _usage(self, body: dict[str, Any], tokens: int) -> dict[str, int]:
        prompt = self.fake.prompt_tokens(body)
        return {"prompt_tokens": prompt, "completion_tokens": tokens, "total_tokens": prompt + tokens}

    def _has_access(self) -> bool:
        if self.fake.api_key in (None, self.headers.get("authorization", "").removeprefix("Bearer ")):
            return True
        self._json(401, {"error": {"message": "Wrong key."}})
        return False

    def _json(self, status: int, body: dict[str, Any]) -> None:
        data = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing: tests look at what came, not at a log."""


def _choice(chat: bool, text: str, finish_reason: str | None) -> dict[str, Any]:
    said = {"delta": {"role": "assistant", "content": text}} if chat else {"text": text}
    return {"choices": [{"index": 0, "finish_reason": finish_reason, **said}]}
