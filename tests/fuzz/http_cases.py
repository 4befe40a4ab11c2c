"""HTTP requests as bytes: most are wrong in their body, some in their head, their framing, their method or path."""

from __future__ import annotations

import json
from dataclasses import dataclass
from random import Random
from typing import Any

from tests.fuzz.damage import damaged_bytes, damaged_value, odd_text, odd_value
from vfastml.entrypoints.openai.unsupported_fields import CHAT, COMPLETIONS, RESPONSES, TOKENIZE

MODEL = "tiny"

_SAMPLING: dict[str, Any] = {
    "temperature": 0.7,
    "top_p": 0.9,
    "top_k": 5,
    "seed": 3,
    "n": 2,
    "stop": ["x", "yz"],
    "min_tokens": 1,
    "max_completion_tokens": 3,
    "repetition_penalty": 1.1,
    "logit_bias": {"5": 1.5, "7": -2},
    "ignore_eos": True,
    "stream": True,
    "stream_options": {"include_usage": True},
    "return_token_ids": True,
    "cache_salt": "salt",
    "echo": True,
}
_MESSAGES: list[dict[str, Any]] = [
    {"role": "system", "content": "Be short."},
    {"role": "user", "content": [{"type": "text", "text": "Say it."}], "name": "me"},
    {"role": "assistant", "content": None, "tool_calls": [{"id": "1", "function": {"name": "f", "arguments": "{}"}}]},
    {"role": "tool", "content": "5", "tool_call_id": "1"},
]
_TOOL: dict[str, Any] = {"name": "f", "description": "It.", "input_schema": {"type": "object", "properties": {}}}
_TURNS: list[dict[str, Any]] = [
    {"role": "user", "content": [{"type": "text", "text": "Say it.", "cache_control": {"type": "ephemeral"}}]},
    {"role": "assistant", "content": [{"type": "tool_use", "id": "1", "name": "f", "input": {"a": [1]}}]},
    {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "1", "content": "5", "is_error": True}]},
    {"role": "assistant", "content": [{"type": "thinking", "thinking": "hm", "signature": ""}]},
    {"role": "system", "content": "Be short."},
]
_OF_MESSAGES: dict[str, Any] = {
    "system": [{"type": "text", "text": "Be shorter."}],
    "tools": [_TOOL],
    "thinking": {"type": "enabled", "budget_tokens": 1024},
    "output_config": {"effort": "low", "format": {"type": "json_schema", "schema": {"type": "null"}}},
    "stop_sequences": ["x", "yz"],
    "top_k": 5,
    "stream": True,
    "metadata": {"user_id": "me"},
}
_MESSAGE_PATHS = ("/v1/messages", "/v1/messages/count_tokens")
_ITEMS: list[dict[str, Any]] = [
    {"role": "developer", "content": "Be short."},
    {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "Say it."}]},
    {"type": "reasoning", "id": "rs_1", "summary": [], "content": [{"type": "reasoning_text", "text": "Hm."}]},
    {"type": "function_call", "call_id": "1", "name": "f", "arguments": "{}"},
    {"type": "function_call_output", "call_id": "1", "output": "5"},
]
_RESPONSES: dict[str, Any] = {
    "instructions": "Be short.",
    "include": ["message.output_text.logprobs"],
    "metadata": {"a": "b"},
    "previous_response_id": "resp_1",
    "reasoning": {"effort": "low"},
    "store": False,
    "stream": True,
    "text": {"format": {"type": "text"}},
    "top_logprobs": 2,
    "truncation": "auto",
}
_PATHS = ("/v1/chat/completions", "/v1/completions", "/v1/responses", "/tokenize", "/detokenize", *_MESSAGE_PATHS)
_OTHER_PATHS = (
    "/v1/responses/resp_1", "/v1/responses/%00/input_items?limit=x",
    "/v1/models", "/v1/models/tiny", "/load", "/version", "/livez", "/readyz", "/health", "/openapi.json", "/docs",
    "/v1/chat/completions/", "//v1//models", "/v1/../load", "/%2e%2e/etc/passwd", "/v1/models/%00", "/%ff%fe",
    "/a" * 900, "/v1/requests/x/cancel", "/v1/requests/%0d%0ax/cancel", "/v1/requests//cancel",
    "*", "http://other.example/v1/models", "/v1/models?" + "a=b&" * 500, "/v1/models/" + "%F0%9F%98%80" * 20, "/\\..\\",
)  # fmt: skip
_METHODS = ("GET", "HEAD", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "CONNECT", "PRI", "BREW", "post", "M-SEARCH")
_ODD_HEADERS = (
    "Host:", "Host: a, b", "Expect: 100-continue", "Expect: 200-maybe", "Content-Encoding: gzip", "Range: bytes=0-",
    "X-Request-Id: a b\x7f", "X-Request-Id: " + "x" * 300, "Authorization: Bearer", "Authorization: Basic é",
    "Origin: null", "Accept: application/xml", "Connection: close", "Connection: keep-alive, upgrade",
    "Upgrade: h2c", "HTTP2-Settings: AAMAAABkAAQAAP__", "Cookie: " + "c" * 5000, "X-Forwarded-For: ::1, evil",
    "Content-Type: text/plain", "Content-Type: multipart/form-data; boundary=", "X-Request-Timeout: soon",
    "X-Request-Timeout: -1", "X-Request-Timeout: 1e999",
)  # fmt: skip
_ODD_FRAMINGS = (
    b"Content-Length: -5\r\n", b"Content-Length: 5\r\nContent-Length: 6\r\n", b"Content-Length: 1e3\r\n",
    b"Content-Length: 99999999999999999999\r\n", b"Content-Length: +5\r\n", b"Content-Length: 17000000\r\n",
    b"Transfer-Encoding: chunked\r\nContent-Length: 5\r\n", b"Transfer-Encoding: gzip\r\n",
    b"Transfer-Encoding: chunked, chunked\r\n", b"Transfer-Encoding:\x0bchunked\r\n", b"Content-Length : 5\r\n",
    b" Content-Length: 5\r\n", b"X: y\nX-Bare: newline\r\n", b": nameless\r\n", b"\xff\xfe: x\r\n", b"X: \x00\r\n",
)  # fmt: skip
_ODD_SIZES = (b"-1", b"+5", b"0x5", b"5;a=b;c", b"FFFFFFFFFFFFFFFFFF", b"", b"5 ", b"g", b"00000005", b"5\n")
_UPGRADE = "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {}\r\n"


@dataclass(frozen=True, slots=True)
class HttpCase:
    """What is sent on one connection. `whole`: by HTTP's rules a complete request, which has to be answered, and after
    which the connection can be used again."""

    data: bytes
    whole: bool


def http_case(rng: Random) -> HttpCase:
    """One case of any kind."""
    makers = (_odd_framing, _odd_head, _odd_chunks, _odd_route, _upgrade, _pipelined)
    return _odd_body(rng) if rng.random() < 0.7 else rng.choice(makers)(rng)


def body_value(rng: Random, path: str) -> Any:
    """A body that the route takes, or that is almost one."""
    body = _sound_body(rng, path)
    if rng.random() < 0.15:
        tables = {"/v1/chat/completions": CHAT, "/v1/completions": COMPLETIONS, "/v1/responses": RESPONSES}
        body[rng.choice(sorted(tables.get(path, TOKENIZE)))] = odd_value(rng)
    return damaged_value(rng, body) if rng.random() < 0.85 else body


def body_bytes(rng: Random, path: str) -> bytes:
    """The same as JSON, or as what is almost JSON."""
    raw = json.dumps(body_value(rng, path), ensure_ascii=rng.random() < 0.5).encode(errors="replace")
    kind = rng.random()
    if kind < 0.15:
        return damaged_bytes(rng, raw)
    if kind < 0.18:
        return rng.choice(
            (b"", b"[" * 90_000, rng.randbytes(3000), raw.decode().encode("utf-16"), b"\xef\xbb\xbf" + raw)
        )
    return raw


def _sound_body(rng: Random, path: str) -> dict[str, Any]:
    if path == "/detokenize":
        return {"model": MODEL, "tokens": [rng.randrange(300) for _ in range(rng.randrange(20))]}
    if path in _MESSAGE_PATHS:
        given = {name: _OF_MESSAGES[name] for name in rng.sample(sorted(_OF_MESSAGES), rng.randrange(5))}
        return {"model": MODEL, "max_tokens": 3, "messages": rng.sample(_TURNS, rng.randint(1, len(_TURNS))), **given}
    text = odd_text(rng)[:60] or "x"
    prompt = rng.choice((text, [text, "b"], [70, 71, 72], [[70, 71], [72]]))
    messages = rng.sample(_MESSAGES, rng.randint(1, len(_MESSAGES)))
    if path == "/tokenize":
        return {"model": MODEL, **({"prompt": text} if rng.random() < 0.5 else {"messages": messages})}
    if path == "/v1/responses":
        given = {name: _RESPONSES[name] for name in rng.sample(sorted(_RESPONSES), rng.randrange(4))}
        items = rng.sample(_ITEMS, rng.randint(1, len(_ITEMS)))
        return {"model": MODEL, "input": rng.choice((text, items)), "max_output_tokens": 3, "temperature": 0, **given}
    given = {name: _SAMPLING[name] for name in rng.sample(sorted(_SAMPLING), rng.randrange(5))}
    asked = {"messages": messages} if path == "/v1/chat/completions" else {"prompt": prompt}
    return {"model": MODEL, "max_tokens": 3, "temperature": 0, **given, **asked}


def _odd_body(rng: Random) -> HttpCase:
    path = rng.choice(_PATHS)
    raw = body_bytes(rng, path)
    head = f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
    if rng.random() < 0.1:
        return HttpCase(f"{head}Transfer-Encoding: chunked\r\n\r\n".encode() + _chunked(rng, raw), whole=True)
    return HttpCase(f"{head}Content-Length: {len(raw)}\r\n\r\n".encode() + raw, whole=True)


def _odd_head(rng: Random) -> HttpCase:
    head, raw = b"POST /tokenize HTTP/1.1\r\nHost: x\r\n", b'{"prompt": "x"}'
    many = rng.choice((1, 1, 3, 3, 200))
    lines = "".join(f"{rng.choice(_ODD_HEADERS)}\r\n" for _ in range(many)).encode("latin-1", errors="replace")
    data = head + lines + b"Content-Length: %d\r\n\r\n" % len(raw) + raw
    return HttpCase(damaged_bytes(rng, data) if rng.random() < 0.5 else data, whole=False)


def _odd_framing(rng: Random) -> HttpCase:
    data = b"POST /tokenize HTTP/1.1\r\nHost: x\r\n" + rng.choice(_ODD_FRAMINGS) + b'\r\n{"prompt": "x"}'
    return HttpCase(data, whole=False)


def _odd_chunks(rng: Random) -> HttpCase:
    head = b"POST /tokenize HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
    if rng.random() < 0.5:
        return HttpCase(head + rng.choice(_ODD_SIZES) + b"\r\nabcde\r\n0\r\n\r\n", whole=False)
    return HttpCase(head + damaged_bytes(rng, _chunked(rng, b'{"prompt": "x"}')), whole=False)


def _odd_route(rng: Random) -> HttpCase:
    method, path = rng.choice((*_METHODS, "GET", "GET", "POST")), rng.choice((*_OTHER_PATHS, *_PATHS))
    version = rng.choice(("1.1", "1.1", "1.1", "1.0", "0.9", "2.0", "9.9"))
    return HttpCase(f"{method} {path} HTTP/{version}\r\nHost: x\r\n\r\n".encode(), whole=False)


def _upgrade(rng: Random) -> HttpCase:
    lines = _UPGRADE.format(rng.choice(("dGhlIHNhbXBsZSBub25jZQ==", "", odd_text(rng)[:20])))
    data = f"{rng.choice(('GET', 'POST'))} {rng.choice(_PATHS)} HTTP/1.1\r\nHost: x\r\n{lines}\r\n".encode()
    return HttpCase(data + rng.choice((b"", b"\x81\x85abcd12345", rng.randbytes(200))), whole=False)


def _pipelined(rng: Random) -> HttpCase:
    return HttpCase(b"".join(_odd_body(rng).data for _ in range(rng.randint(2, 6))), whole=False)


def _chunked(rng: Random, raw: bytes) -> bytes:
    cut = rng.randrange(len(raw) + 1)
    pieces = [piece for piece in (raw[:cut], raw[cut:]) if piece]
    return b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces) + b"0\r\n\r\n"
