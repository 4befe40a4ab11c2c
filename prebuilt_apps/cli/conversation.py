"""What has been said, and whoever answers."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from contextlib import closing

from prebuilt_apps.cli.service_client import Message

Answer = Callable[[list[Message]], Iterator[str]]
"""From all messages so far to the pieces of the next one."""


class Conversation:
    """Keeps the messages of both sides."""

    def __init__(self, answer: Answer, system: str | None = None) -> None:
        self._answer = answer
        self._opening: list[Message] = [{"role": "system", "content": _encodable(system)}] if system else []
        self.reset()

    def reset(self) -> None:
        """Forgets what has been said, but for the system message."""
        self._messages = list(self._opening)

    def say(self, text: str) -> Generator[str, None, None]:
        """The answer as it comes. What has come of it is kept when it is stopped or fails on the way; if that is
        nothing, the question is forgotten too."""
        question = {"role": "user", "content": _encodable(text)}
        pieces: list[str] = []
        try:
            with closing(_closable(self._answer([*self._messages, question]))) as answer:
                for piece in map(_encodable, answer):
                    pieces.append(piece)
                    yield piece
        finally:
            if pieces:
                self._messages += [question, {"role": "assistant", "content": "".join(pieces)}]


def _encodable(text: str) -> str:
    """Without lone surrogates, which arguments and JSON may hold, and no request can carry."""
    return text.encode("utf-8", "replace").decode()


def _closable(pieces: Iterator[str]) -> Generator[str, None, None]:
    yield from pieces
