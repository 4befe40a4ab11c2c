"""How chat and completions word the same facts: a choice of a whole answer, and the choices of a stream's chunks."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Protocol

from vfastml.engine.dispatch_replies import Delta
from vfastml.engine.dispatch_result import TextChoice

Choice = dict[str, Any]


class ReplyStyle(Protocol):
    """`index` is the choice's place in the response, over all its prompts."""

    object: str
    chunk_object: str
    prompt_ids_in_choices: bool
    """Whether a choice carries its prompt's token ids, if they are asked for: there may be several prompts."""

    def whole(self, index: int, choice: TextChoice) -> Choice:
        """A finished choice."""

    def opening(self, index: int) -> Choice | None:
        """What goes before the first piece of a choice, in a chunk of its own."""

    def pieces(self, index: int, delta: Delta) -> Iterator[Choice]:
        """A delta, one item for each chunk; none when it has nothing to show."""


class ChatStyle:
    """Messages and message deltas; a choice ends with an empty delta that has the finish reason."""

    object = "chat.completion"
    chunk_object = "chat.completion.chunk"
    prompt_ids_in_choices = False

    def whole(self, index: int, choice: TextChoice) -> Choice:
        message = {"role": "assistant", "content": choice.text, "refusal": None}
        return {"index": index, "message": message, **_ending(choice), **_token_ids(choice)}

    def opening(self, index: int) -> Choice | None:
        return _unfinished(index, {"role": "assistant", "content": ""})

    def pieces(self, index: int, delta: Delta) -> Iterator[Choice]:
        if delta.text or delta.token_ids:
            yield {**_unfinished(index, {"content": delta.text}), **_token_ids(delta)}
        if delta.finish_reason is not None:
            yield {"index": index, "delta": {}, **_ending(delta)}


class CompletionStyle:
    """Plain text; the last text of a choice has the finish reason."""

    object = "text_completion"
    chunk_object = "text_completion"
    prompt_ids_in_choices = True

    def whole(self, index: int, choice: TextChoice) -> Choice:
        return _text(index, choice)

    def opening(self, index: int) -> Choice | None:
        return None

    def pieces(self, index: int, delta: Delta) -> Iterator[Choice]:
        if delta.text or delta.token_ids or delta.finish_reason is not None:
            yield _text(index, delta)


CHAT: ReplyStyle = ChatStyle()
COMPLETION: ReplyStyle = CompletionStyle()


def _text(index: int, piece: TextChoice | Delta) -> Choice:
    return {"index": index, "text": piece.text, **_ending(piece), **_token_ids(piece)}


def _unfinished(index: int, delta: dict[str, str]) -> Choice:
    return {"index": index, "delta": delta, "logprobs": None, "finish_reason": None}


def _ending(piece: TextChoice | Delta) -> Choice:
    return {"logprobs": None, "finish_reason": piece.finish_reason, "stop_reason": piece.stop_reason}


def _token_ids(piece: TextChoice | Delta) -> Choice:
    return {} if piece.token_ids is None else {"token_ids": piece.token_ids}
