"""The items of an answer as they grow: what happens to them is told in the API's own events."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, ClassVar, Literal

from vfastml.engine.dispatch_replies import PlaceLogprobs, ToolCallPiece
from vfastml.entrypoints.openai.logprobs import chat_logprobs
from vfastml.entrypoints.openai.responses.item_ids import new_item_id
from vfastml.errors import VFastMLError

Body = dict[str, Any]
Event = dict[str, Any]
Status = Literal["in_progress", "completed", "incomplete"]


def error_event(error: VFastMLError) -> Event:
    """What went wrong."""
    return {"type": "error", "code": error.code, "message": error.message, "param": error.param}


class OutputItem:
    """One item, at its place in the output: opened, fed, closed."""

    kind: ClassVar[str]

    def __init__(self, place: int) -> None:
        self.status: Status = "in_progress"
        self.id = new_item_id(self.kind)
        self._place = place

    def body(self) -> Body:
        """As far as it has come."""
        return {"id": self.id, "type": self.kind, "status": self.status, **self._body()}

    def opening(self) -> Iterator[Event]:
        """Before anything that is in it."""
        yield {"type": "response.output_item.added", "output_index": self._place, "item": self.body()}

    def closing(self, status: Status) -> Iterator[Event]:
        """Nothing more comes."""
        yield from self._last_words()
        self.status = status
        yield {"type": "response.output_item.done", "output_index": self._place, "item": self.body()}

    def _body(self) -> Body:
        raise NotImplementedError

    def _last_words(self) -> Iterator[Event]:
        raise NotImplementedError

    def _event(self, kind: str, /, **more: Any) -> Event:
        return {"type": f"response.{kind}", "item_id": self.id, "output_index": self._place, **more}


class _TextItem(OutputItem):
    """An item with one part, of text."""

    part_events: ClassVar[str]

    def __init__(self, place: int) -> None:
        super().__init__(place)
        self._pieces: list[str] = []

    def opening(self) -> Iterator[Event]:
        yield {
            "type": "response.output_item.added",
            "output_index": self._place,
            "item": {**self.body(), "content": []},
        }
        yield self._event("content_part.added", content_index=0, part=self._part())

    def _body(self) -> Body:
        return {"content": [self._part()]}

    def _part(self) -> Body:
        raise NotImplementedError

    def _last_words(self) -> Iterator[Event]:
        yield self._event(f"{self.part_events}.done", content_index=0, text=self._text(), **self._details())
        yield self._event("content_part.done", content_index=0, part=self._part())

    def _details(self) -> Body:
        return {}

    def _text(self) -> str:
        return "".join(self._pieces)

    def _grown(self, text: str, **details: Any) -> Event:
        self._pieces.append(text)
        return self._event(f"{self.part_events}.delta", content_index=0, delta=text, **details)


class MessageItem(_TextItem):
    """What the model says."""

    kind = "message"
    part_events = "output_text"

    def __init__(self, place: int) -> None:
        super().__init__(place)
        self._logprobs: list[Body] = []

    def say(self, text: str, places: list[PlaceLogprobs]) -> Event:
        """More of it, with the log probabilities of its tokens where they are asked for."""
        return self._grown(text, logprobs=self.add_logprobs(places))

    def add_logprobs(self, places: list[PlaceLogprobs]) -> list[Body]:
        """Of tokens that have no text; they are told with the whole."""
        logprobs: list[Body] = chat_logprobs(places, names_ids=False)["content"]
        self._logprobs += logprobs
        return logprobs

    def _body(self) -> Body:
        return {"role": "assistant", **super()._body()}

    def _part(self) -> Body:
        return {"type": "output_text", "text": self._text(), "annotations": [], "logprobs": list(self._logprobs)}

    def _details(self) -> Body:
        return {"logprobs": list(self._logprobs)}


class ReasoningItem(_TextItem):
    """What the model thinks."""

    kind = "reasoning"
    part_events = "reasoning_text"

    def think(self, text: str) -> Event:
        """More of it."""
        return self._grown(text)

    def _body(self) -> Body:
        return {"summary": [], **super()._body()}

    def _part(self) -> Body:
        return {"type": "reasoning_text", "text": self._text()}


class FunctionCallItem(OutputItem):
    """A function that the model wants called."""

    kind = "function_call"

    def __init__(self, place: int, piece: ToolCallPiece) -> None:
        super().__init__(place)
        self._call_id = piece.id
        self._name = piece.name
        self._pieces: list[str] = []

    def add(self, piece: ToolCallPiece) -> Iterator[Event]:
        """More of its arguments."""
        if piece.arguments:
            self._pieces.append(piece.arguments)
            yield self._event("function_call_arguments.delta", delta=piece.arguments)

    def _body(self) -> Body:
        return {"call_id": self._call_id, "name": self._name, "arguments": "".join(self._pieces)}

    def _last_words(self) -> Iterator[Event]:
        yield self._event("function_call_arguments.done", name=self._name, arguments="".join(self._pieces))
