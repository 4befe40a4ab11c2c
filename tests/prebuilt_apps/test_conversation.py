"""What a conversation keeps, and what of it reaches a terminal."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing

import pytest

from prebuilt_apps.cli.conversation import Conversation
from prebuilt_apps.cli.service_client import Message
from prebuilt_apps.cli.service_error import ServiceError
from prebuilt_apps.cli.terminal import shown


class Model:
    """Answers with fixed pieces, then fails or not, and notes what it was asked."""

    def __init__(self, *pieces: str, error: Exception | None = None) -> None:
        self.pieces, self.error = pieces, error
        self.asked: list[list[str]] = []
        self.closed = 0

    def __call__(self, messages: list[Message]) -> Iterator[str]:
        self.asked.append([f"{message['role']}: {message['content']}" for message in messages])
        try:
            yield from self.pieces
            if self.error:
                raise self.error
        finally:
            self.closed += 1


def test_history_is_kept_and_reset() -> None:
    model = Model("Hi", "!")
    conversation = Conversation(model, system="Be short.")
    assert list(conversation.say("one")) == ["Hi", "!"]
    list(conversation.say("two"))
    assert model.asked[1] == ["system: Be short.", "user: one", "assistant: Hi!", "user: two"]
    conversation.reset()
    list(conversation.say("three"))
    assert model.asked[2] == ["system: Be short.", "user: three"]


def test_a_stopped_answer_is_kept_as_far_as_it_came() -> None:
    model = Model("Hi", "!")
    conversation = Conversation(model)
    with closing(conversation.say("one")) as answer:
        assert next(answer) == "Hi"
    assert model.closed == 1, "the request is stopped"
    list(conversation.say("two"))
    assert model.asked[1] == ["user: one", "assistant: Hi", "user: two"]


def test_a_question_without_any_answer_is_forgotten() -> None:
    model = Model(error=ServiceError("No."))
    conversation = Conversation(model)
    for text in ("one", "two"):
        with pytest.raises(ServiceError):
            list(conversation.say(text))
    assert model.asked[1] == ["user: two"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a\tb\n", "a\tb\n"),
        ("\x1b[31mred\x1b]0;title\x07", "\\x1b[31mred\\x1b]0;title\\x07"),
        ("\x00\x08\r\x7f\x85\x9b2J", "\\x00\\x08\\x0d\\x7f\\x85\\x9b2J"),
        ("é 漢 🙂", "é 漢 🙂"),
    ],
)
def test_control_characters_are_written_out(text: str, expected: str) -> None:
    assert shown(text) == expected
