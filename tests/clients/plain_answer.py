"""What every client asks, and what a plain HTTP call gets for it."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel

from tests.e2e.service import Service

MODEL = "smollm2-135m-instruct"
QUESTION = "What is the capital of France?"
MESSAGES: list[Any] = [{"role": "user", "content": QUESTION}]
NUM_TOKENS = 12


class Capital(BaseModel):
    """The capital of a country."""

    city: Literal["Paris", "London", "Rome"]
    in_europe: bool


def plain_answer(service: Service, **fields: Any) -> dict[str, Any]:
    """The body of a greedy chat completion of the question; `fields` come on top."""
    asked: dict[str, Any] = {"model": MODEL, "messages": MESSAGES, "temperature": 0, "max_tokens": NUM_TOKENS}
    answer = service.chat(**asked | fields)
    assert answer.status_code == 200, answer.text
    return answer.json()


def plain_text(service: Service, **fields: Any) -> str:
    """Its text, which is never empty."""
    text: str = plain_answer(service, **fields)["choices"][0]["message"]["content"]
    assert text
    return text
