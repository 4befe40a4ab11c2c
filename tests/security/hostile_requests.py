"""Requests that have once done harm to this or to another server, or might: all of them end in an answer."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

CANARY = "c4naryc4nary"
"""Stands in most of them, and in no answer that refuses."""


@dataclass(frozen=True)
class Hostile:
    name: str
    path: str
    body: bytes

    def __str__(self) -> str:
        return f"{self.path} {self.name}"


def _chat(name: str, **fields: Any) -> Hostile:
    body = {"model": "tiny", "messages": "hi", "max_tokens": 2, **fields}
    return Hostile(name, "/v1/chat/completions", json.dumps(body).encode())


def _text(name: str, **fields: Any) -> Hostile:
    body = {"model": "tiny", "prompt": "hi", "max_tokens": 2, **fields}
    return Hostile(name, "/v1/completions", json.dumps(body).encode())


def _constrained(name: str, **constraint: Any) -> Hostile:
    return _text(f"constraint: {name}", structured_outputs=constraint)


def _any(name: str, path: str, body: Any) -> Hostile:
    return Hostile(name, path, body if isinstance(body, bytes) else json.dumps(body).encode())


REQUESTS: list[Hostile] = [
    _any("no JSON", "/v1/chat/completions", CANARY.encode() * 1000),
    _any("deep", "/v1/chat/completions", b'{"messages":' + b"[" * 200_000),
    _any(
        "deep message",
        "/v1/chat/completions",
        b'{"messages":[{"role":"user","content":"x","a":' + b"[" * 900 + b"]" * 900 + b"}]}",
    ),
    _any("half a character", "/v1/chat/completions", b'{"messages": "\\ud800"}'),
    _any("zero bytes", "/v1/chat/completions", json.dumps({"messages": "\0" * 100, "max_tokens": 1}).encode()),
    _chat("role", messages=[{"role": CANARY, "content": "x"}]),
    _chat("no content", messages=[{"role": "user"}]),
    _chat("content of objects", messages=[{"role": "user", "content": {CANARY: CANARY}}]),
    _chat("image", messages=[{"role": "user", "content": [{"type": "image_url", "image_url": {"url": CANARY}}]}]),
    _chat("template", chat_template="{{ ''.__class__ }}" + CANARY),
    _chat("template in a message", messages="{{ messages.__class__.__mro__ }}{% raise %}"),
    _chat("special tokens", messages="<|im_end|><|endoftext|><|im_start|>system\n</s>" * 50),
    _chat("arguments of the template", chat_template_kwargs={"messages": [], CANARY: 1}),
    _chat("unbounded arguments", chat_template_kwargs={"tokenize": True, "return_dict": True}),
    _chat("tool without a name", tools=[{"type": "function", "function": {}}]),
    _chat(
        "tool of objects",
        tools=[{"type": "function", "function": {"name": "f", "parameters": {CANARY: [CANARY] * 999}}}],
    ),
    _chat(
        "tool that refers to itself",
        tools=[{"type": "function", "function": {"name": "f", "parameters": {"$ref": "#"}}}],
        tool_choice="required",
    ),
    _chat(
        "calls that are none",
        messages=[{"role": "assistant", "tool_calls": [CANARY, 5, None, {}]}, {"role": "user", "content": "x"}],
    ),
    _chat(
        "call with endless arguments",
        messages=[{"role": "assistant", "tool_calls": [{"function": {"name": "f", "arguments": "[" * 99999}}]}],
    ),
    _chat("large numbers in messages", messages=[{"role": "user", "content": "x", "n": 2**63}]),
    _chat("many messages", messages=[{"role": "user", "content": ""}] * 4096),
    _chat("longer than the context", messages="x" * 100_000),
    _chat("model", model=f"../../../etc/{CANARY}"),
    _chat("model as a URL", model=f"http://127.0.0.1:1/{CANARY}"),
    _chat("everything at once", n=128, top_logprobs=20, logprobs=True, max_tokens=2**31 - 1),
    _text("token ids that are none", prompt=[2**31 - 1]),
    _text("negative token ids", prompt=[-1]),
    _text("empty prompt", prompt=""),
    _text("empty list", prompt=[]),
    _text("empty lists", prompt=[[]]),
    _text("many prompts", prompt=["x"] * 129),
    _text("best of many", best_of=128, n=128),
    _text("beams", use_beam_search=True, beam_width=128),
    _text("beams without text", use_beam_search=True, beam_width=2, max_tokens=0),
    _text("bias on every token", logit_bias={str(token): -100 for token in range(300)}),
    _text("bias on no token", logit_bias={"99999999": 1}),
    _text("nothing allowed", allowed_token_ids=[10**9]),
    _text("everything barred", bad_words=[chr(one) for one in range(32, 127)]),
    _text("no penalty that is one", repetition_penalty=1e-300),
    _text("small temperature", temperature=1e-300),
    _text("small top_p", top_p=1e-300),
    _text("stops everywhere", stop=["", CANARY]),
    _text("stop of zero bytes", stop=["\0"]),
    _text("largest seed", seed=2**63 - 1),
    _text("longest deadline", deadline_s=1e-9),
    _text("circles", repetition_detection={"max_pattern_size": 2**40}),
    _text("cut to nothing", truncate_prompt_tokens=0),
    _text("suffix", suffix=CANARY),
    _text("echo of all", echo=True, logprobs=20, prompt_logprobs=20, prompt="x" * 100),
    _text("priority", priority=-(2**31) + 1),
    _text("salt", cache_salt="\0" * 512),
    _constrained("nested parentheses", regex="(" * 30000 + "a" + ")" * 30000),
    _constrained("repeated repeat", regex="(a+)+$"),
    _constrained("repeats of repeats", regex="((((a{99}){99}){99}){99}){99}"),
    _constrained("open class", regex=f"[{CANARY}"),
    _constrained("look back", regex=r"(a)\1(?<=b)"),
    _constrained("many values", json={"enum": [f"value {number}" for number in range(70_000)]}),
    _constrained("endless reference", json={"$ref": "#"}),
    _constrained(
        "circle of references",
        json={"$defs": {"a": {"$ref": "#/$defs/b"}, "b": {"$ref": "#/$defs/a"}}, "$ref": "#/$defs/a"},
    ),
    _constrained("reference elsewhere", json={"$ref": f"http://127.0.0.1:1/{CANARY}"}),
    _constrained("reference to a file", json={"$ref": "file:///etc/passwd"}),
    _constrained("deep schema", json='{"items":' * 20_000 + "{}" + "}" * 20_000),
    _constrained("huge bounds", json={"type": "array", "minItems": 10**9, "items": {"type": "integer"}}),
    _constrained("huge string", json={"type": "string", "minLength": 10**9, "maxLength": 10**18}),
    _constrained("huge integer", json={"type": "integer", "minimum": -(10**30), "maximum": 10**30}),
    _constrained("pattern in a schema", json={"type": "string", "pattern": "(a+)+$" * 1000}),
    _constrained("nothing is valid", json={"allOf": [{"type": "string"}, {"type": "integer"}]}),
    _constrained("endless rule", grammar="root ::= root root"),
    _constrained("empty rule", grammar='root ::= "" root | ""'),
    _constrained("long grammar", grammar="root ::= " + " | ".join(f'"x{number}"' for number in range(50_000))),
    _constrained("grammar that reads files", grammar="%import common.WORD\n%import /etc/passwd\nstart: WORD"),
    _constrained("python in a grammar", grammar='start: "a"\n%ignore __import__("os").system("id")'),
    _constrained("two at once", regex="a", json={}),
    _any("responses: items", "/v1/responses", {"input": [{"type": CANARY}] * 50}),
    _any(
        "responses: image",
        "/v1/responses",
        {"input": [{"role": "user", "content": [{"type": "input_image", "image_url": CANARY}]}]},
    ),
    _any(
        "responses: file",
        "/v1/responses",
        {"input": [{"role": "user", "content": [{"type": "input_file", "file_url": CANARY}]}]},
    ),
    _any("responses: earlier one", "/v1/responses", {"input": "x", "previous_response_id": f"../{CANARY}"}),
    _any("responses: tools", "/v1/responses", {"input": "x", "tools": [{"type": "mcp", "server_url": CANARY}]}),
    _any(
        "messages: image",
        "/v1/messages",
        {
            "max_tokens": 1,
            "messages": [{"role": "user", "content": [{"type": "image", "source": {"type": "url", "url": CANARY}}]}],
        },
    ),
    _any(
        "messages: servers",
        "/v1/messages",
        {"max_tokens": 1, "mcp_servers": [{"url": CANARY}], "messages": [{"role": "user", "content": "x"}]},
    ),
    _any(
        "messages: thinking",
        "/v1/messages",
        {"max_tokens": 1, "thinking": {"type": CANARY}, "messages": [{"role": "user", "content": "x"}]},
    ),
    _any("tokenize: long", "/tokenize", {"prompt": "x" * 5_000_000}),
    _any("tokenize: both", "/tokenize", {"prompt": CANARY, "messages": CANARY}),
    _any("detokenize: none", "/detokenize", {"tokens": [2**31 - 1] * 1000}),
    _any("detokenize: many", "/detokenize", {"tokens": [1] * 1_000_000}),
    _any("render: arguments", "/apply-template", {"messages": "x", "chat_template_kwargs": {"self": 1, "cycler": 2}}),
    _any("cancel", f"/v1/requests/{CANARY}/cancel", b""),
    _any("cancel: path", "/v1/requests/..%2f..%2fetc%2fpasswd/cancel", b""),
    _any("no route", f"/{CANARY}/../..//%00", b"{}"),
]
