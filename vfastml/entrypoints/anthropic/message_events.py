"""The events of a streamed message."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from vfastml.engine.dispatch_replies import Accepted, Delta, ToolCallPiece, Usage
from vfastml.entrypoints.anthropic.error_envelope import anthropic_error
from vfastml.entrypoints.anthropic.message_style import (
    Body,
    MessageStyle,
    message,
    text_block,
    thinking_block,
    tool_block,
    usage_body,
)
from vfastml.entrypoints.streaming import Wording, event
from vfastml.errors import VFastMLError

_Kind = tuple[str, int]
"""Of a block: what it has, and of which tool call."""
_TEXT, _THINKING = ("text", 0), ("thinking", 0)


class MessageEvents(Wording):
    """Says one message: blocks one after the other, each from its first piece to the first one of the next."""

    keep_alive = event({"type": "ping"}, "ping")

    def __init__(self, style: MessageStyle, message_id: str, model: str | None, accepted: Accepted) -> None:
        self._style = style
        self._message = message(message_id, model, Usage(accepted.prompt_tokens))
        self._open: _Kind | None = None
        self._index = -1
        """Of the open block, or the last one that was."""
        self._ending = style.ending(None, None)

    def opening(self) -> bytes:
        """The message, still empty."""
        return _event("message_start", message=self._message)

    def delta(self, position: int, delta: Delta) -> bytes:
        """What is new, of one block or of several."""
        if delta.finish_reason is not None:
            self._ending = self._style.ending(delta.finish_reason, delta.stop_reason)
        return b"".join(self._events(delta))

    def closing(self, usages: Sequence[Usage]) -> bytes:
        """Why it ended, and what it used."""
        used = usage_body(usages[0])
        return self._closed() + _event("message_delta", delta=self._ending, usage=used) + _event("message_stop")

    def failure(self, error: VFastMLError) -> bytes:
        """In the place of the end."""
        return event(anthropic_error(error), "error")

    def _events(self, delta: Delta) -> Iterator[bytes]:
        if delta.reasoning and self._style.shown_thinking != "nothing":
            yield self._opened(_THINKING, thinking_block())
            if self._style.shown_thinking == "whole":
                yield self._piece("thinking_delta", thinking=delta.reasoning)
        if delta.text:
            yield self._opened(_TEXT, text_block())
            yield self._piece("text_delta", text=delta.text)
        for piece in delta.tool_calls or ():
            yield self._called(piece)

    def _called(self, piece: ToolCallPiece) -> bytes:
        # Parsers end a call before they begin the next one: a piece that is not of the open block is the first of its
        # call, which alone has the id and the name.
        opened = self._opened(("tool_use", piece.index), tool_block(piece.id, piece.name))
        return opened + (self._piece("input_json_delta", partial_json=piece.arguments) if piece.arguments else b"")

    def _opened(self, kind: _Kind, block: Body) -> bytes:
        """Nothing if that is the open block already."""
        if kind == self._open:
            return b""
        closed = self._closed()
        self._open = kind
        self._index += 1
        return closed + _event("content_block_start", index=self._index, content_block=block)

    def _closed(self) -> bytes:
        if self._open is None:
            return b""
        # Some clients keep what was thought only with a signature, even an empty one.
        signed = self._piece("signature_delta", signature="") if self._open == _THINKING else b""
        self._open = None
        return signed + _event("content_block_stop", index=self._index)

    def _piece(self, kind: str, **piece: str) -> bytes:
        return _event("content_block_delta", index=self._index, delta={"type": kind, **piece})


def _event(name: str, **fields: Any) -> bytes:
    return event({"type": name, **fields}, name)
