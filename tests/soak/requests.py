"""The requests of a soak: what is asked, and which answer is the right one."""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from typing import Any

MODEL = "tiny"
MAX_TOKENS = 60
_SHARED = "You are one of many who read the same long text before they are asked. " * 6


@dataclass(frozen=True)
class Question:
    """One request, and what its answer has to be."""

    path: str
    body: dict[str, Any] | bytes | None
    """JSON, or what is sent as it is; None asks by GET."""
    statuses: frozenset[int] = frozenset({200})
    expected: dict[str, Any] = field(default_factory=dict)
    """Fields that the answer must have, just so."""

    @property
    def is_stream(self) -> bool:
        return isinstance(self.body, dict) and bool(self.body.get("stream"))


def valid_question(rng: random.Random, number: int) -> Question:
    """Text in its many forms, mostly; `number` makes each prompt one of its own."""
    if rng.random() < 0.1:
        return _about_tokens(rng, f"text {number}")
    fields = _sampling(rng) | {"model": MODEL, "max_tokens": rng.randrange(1, MAX_TOKENS), "stream": rng.random() < 0.6}
    prompt = rng.choice(("", _SHARED)) + f"Question {' '.join(str(number))}: " + "why? " * rng.randrange(0, 40)
    if rng.random() < 0.5:
        return Question("/v1/completions", {**fields, "prompt": prompt})
    return Question("/v1/chat/completions", {**fields, "messages": [{"role": "user", "content": prompt}]})


def invalid_question(rng: random.Random) -> Question:
    """To be refused, with a reason."""
    chat, text = "/v1/chat/completions", {"model": MODEL, "prompt": "x"}
    return rng.choice(
        (
            Question(chat, b"{", frozenset({400})),
            Question(chat, {"model": MODEL, "messages": 5}, frozenset({400})),
            Question(chat, {"model": MODEL, "messages": [{"role": "nobody", "content": "x"}]}, frozenset({400})),
            Question("/v1/completions", text | {"model": "another"}, frozenset({404})),
            Question("/v1/completions", text | {"max_tokens": -1}, frozenset({400})),
            Question("/v1/completions", text | {"temperature": 99}, frozenset({400})),
            Question("/v1/completions", text | {"prompt": "long " * 2000}, frozenset({400})),
            Question("/v1/completions", b'{"model": "tiny", "prompt": "x", "top_p": NaN}', frozenset({400})),
            Question("/v1/completions", None, frozenset({405})),
            Question("/v1/nothing", {}, frozenset({404})),
        )
    )


def _about_tokens(rng: random.Random, text: str) -> Question:
    if rng.random() < 0.5:
        return Question("/detokenize", {"model": MODEL, "tokens": [rng.randrange(256) for _ in text]})
    # The tiny model has a token for each byte.
    body = {"model": MODEL, "prompt": text, "add_special_tokens": False}
    return Question("/tokenize", body, expected={"count": len(text.encode())})


def _sampling(rng: random.Random) -> dict[str, Any]:
    greedy: dict[str, Any] = {"temperature": 0}
    warm = {"temperature": 0.9, "top_p": 0.9, "seed": rng.randrange(1000)}
    return rng.choice(
        (greedy, warm, warm | {"n": 3}, greedy | {"stop": ["e", "zz"]}, warm | {"top_k": 20, "repetition_penalty": 1.1})
    )
