"""S7: wherever text could be taken for an address or a path, nothing is fetched and nothing is opened."""

from __future__ import annotations

import http.server
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.service import Service

SECRET = "s3cret-of-a-file"


class Canary:
    """An HTTP server that notes who comes, and a file that nobody should read."""

    def __init__(self, folder: Path) -> None:
        self.visits: list[str] = []
        self.file = folder / "canary.txt"
        self.file.write_text(SECRET)
        visits = self.visits

        class Noting(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                visits.append(self.path)
                self.send_error(404)

            def log_message(self, *args: Any) -> None:
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Noting)
        self.port = self.server.server_port
        threading.Thread(target=self.server.serve_forever, daemon=True).start()


@pytest.fixture(scope="module")
def canary(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Canary]:
    canary = Canary(tmp_path_factory.mktemp("canary"))
    yield canary
    canary.server.shutdown()


SPELLINGS = {
    "plain": "http://127.0.0.1:{port}/x",
    "name": "http://localhost:{port}/x",
    "short": "http://127.1:{port}/x",
    "number": "http://2130706433:{port}/x",
    "hexadecimal": "http://0x7f.1:{port}/x",
    "octal": "http://0177.0.0.1:{port}/x",
    "IPv6": "http://[::1]:{port}/x",
    "IPv4 in IPv6": "http://[::ffff:127.0.0.1]:{port}/x",
    "any": "http://0.0.0.0:{port}/x",
    "user": "http://example.com@127.0.0.1:{port}/x",
    "backslash": "http://127.0.0.1:{port}\\@example.com/x",
    "fragment": "http://127.0.0.1:{port}#@example.com/",
    "upper case": "HTTP://127.0.0.1:{port}/x",
    "metadata": "http://169.254.169.254/latest/meta-data/",
    "no scheme": "//127.0.0.1:{port}/x",
    "file": "file://{file}",
    "file of a host": "file://localhost{file}",
    "path": "{file}",
    "path from here": "../../../../../../../..{file}",
    "data": "data:image/png;base64,iVBORw0KGgo=",
    "ftp": "ftp://127.0.0.1:{port}/x",
    "gopher": "gopher://127.0.0.1:{port}/_x",
}


def user(part: dict[str, Any]) -> list[dict[str, Any]]:
    return [{"role": "user", "content": [part]}]


def requests_with(url: str) -> dict[str, tuple[str, dict[str, Any]]]:
    """Each place that other servers, or other kinds of models, take an address or a name of a file from."""
    chat, text, answers, messages = "/v1/chat/completions", "/v1/completions", "/v1/responses", "/v1/messages"
    return {
        "image_url": (chat, {"messages": user({"type": "image_url", "image_url": {"url": url}})}),
        "image_url as text": (chat, {"messages": user({"type": "image_url", "image_url": url})}),
        "video_url": (chat, {"messages": user({"type": "video_url", "video_url": {"url": url}})}),
        "input_audio": (
            chat,
            {"messages": user({"type": "input_audio", "input_audio": {"data": url, "format": "wav"}})},
        ),
        "file": (chat, {"messages": user({"type": "file", "file": {"file_id": url}})}),
        "role": (chat, {"messages": [{"role": url, "content": "x"}]}),
        "template": (chat, {"messages": "x", "chat_template": url}),
        "model": (chat, {"messages": "x", "model": url}),
        "model of a text": (text, {"prompt": "x", "model": url}),
        "adapter": (text, {"prompt": "x", "lora_path": url}),
        "schema": (text, {"prompt": "x", "structured_outputs": {"json": {"$ref": url}}}),
        "schema's name": (
            text,
            {"prompt": "x", "structured_outputs": {"json": {"$schema": url, "$id": url, "not": {}}}},
        ),
        "grammar": (text, {"prompt": "x", "structured_outputs": {"grammar": f"%import {url}\nstart: A"}}),
        "input_image": (answers, {"input": user({"type": "input_image", "image_url": url})}),
        "input_file": (answers, {"input": user({"type": "input_file", "file_url": url})}),
        "tool of a server": (
            answers,
            {"input": "x", "tools": [{"type": "mcp", "server_label": "a", "server_url": url}]},
        ),
        "prompt of a store": (answers, {"input": "x", "prompt": {"id": url}}),
        "conversation": (answers, {"input": "x", "previous_response_id": url}),
        "image source": (
            messages,
            {"max_tokens": 1, "messages": user({"type": "image", "source": {"type": "url", "url": url}})},
        ),
        "document source": (
            messages,
            {"max_tokens": 1, "messages": user({"type": "document", "source": {"type": "url", "url": url}})},
        ),
        "model to count with": (
            "/v1/messages/count_tokens",
            {"messages": user({"type": "text", "text": "x"}), "model": url},
        ),
        "model to tokenize with": ("/tokenize", {"prompt": "x", "model": url}),
    }


@pytest.mark.rule("S7")
@pytest.mark.parametrize("spelling", SPELLINGS)
def test_nothing_is_fetched_or_opened(tiny_service: Service, canary: Canary, spelling: str) -> None:
    url = SPELLINGS[spelling].format(port=canary.port, file=canary.file)
    for place, (path, body) in requests_with(url).items():
        answer = tiny_service.http.post(path, json=body)
        assert answer.status_code in (400, 404), (place, answer.text)
        assert SECRET not in answer.text
        assert str(canary.port) not in answer.text
        assert str(canary.file) not in answer.text
    assert canary.visits == []


@pytest.mark.rule("S7")
def test_an_address_in_a_text_is_text(tiny_service: Service, canary: Canary) -> None:
    for spelling in SPELLINGS.values():
        url = spelling.format(port=canary.port, file=canary.file)
        answer = tiny_service.http.post("/tokenize", json={"messages": url})
        assert answer.status_code == 200
        assert SECRET not in answer.text
    assert canary.visits == []


@pytest.mark.rule("S7")
def test_media_are_refused_by_name(tiny_service: Service) -> None:
    body = requests_with("data:image/png;base64,iVBORw0KGgo=")["image_url"][1]
    answer = tiny_service.http.post("/v1/chat/completions", json=body)
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "unsupported_parameter")
    assert "text parts" in answer.json()["error"]["message"]
