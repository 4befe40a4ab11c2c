"""An HTTP server that answers every request with what a test has written."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, TypeVar


class ScriptedServer(ThreadingHTTPServer):
    """Answers with `status` and `body`; `asked` has the requests as (path, headers, body)."""

    daemon_threads = True

    def __init__(self, port: int = 0) -> None:
        super().__init__(("127.0.0.1", port), _Handler)
        self.url = f"http://127.0.0.1:{self.server_address[1]}"
        self.status = 200
        self.body = b""
        self.bodies_by_path: dict[str, tuple[int, bytes]] = {}
        self.asked: list[tuple[str, dict[str, str], Any]] = []

    def answer_to(self, path: str) -> tuple[int, bytes]:
        """Status and body."""
        return self.bodies_by_path.get(path, (self.status, self.body))

    def refuse(self, status: int, message: str) -> None:
        """As the gateway does."""
        self.status, self.body = status, json.dumps({"error": {"message": message, "type": "x"}}).encode()

    def stream(self, *pieces: str, end: str = "data: [DONE]\n\n") -> None:
        """An answer of these pieces."""
        chunks = [{"choices": [{"index": 0, "delta": {"content": piece}}]} for piece in pieces]
        self.status = 200
        self.body = "".join(f"data: {json.dumps(chunk)}\n\n" for chunk in chunks).encode() + end.encode()


S = TypeVar("S", bound=ScriptedServer)


class _Handler(BaseHTTPRequestHandler):
    server: ScriptedServer

    def do_GET(self) -> None:
        self._answer(None)

    def do_POST(self) -> None:
        self._answer(json.loads(self.rfile.read(int(self.headers["content-length"]))))

    def _answer(self, body: Any) -> None:
        self.server.asked.append((self.path, dict(self.headers), body))
        status, answer = self.server.answer_to(self.path)
        self.send_response(status)
        self.send_header("content-length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing into the output of the tests."""


def scripted_server() -> AbstractContextManager[ScriptedServer]:
    """One that runs."""
    return running(ScriptedServer())


@contextmanager
def running(server: S) -> Iterator[S]:
    """Answers until the end of the `with` block."""
    with server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()
