"""How chat and completions word the same facts: a choice of a whole answer, and the choices of a stream's chunks."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Protocol

from vfastml.engine.dispatch_replies import Delta, PlaceLogprobs, ToolCallPiece
from vfastml.engine.dispatch_result import TextChoice, ToolCall
from vfastml.entrypoints.openai.logprobs import CompletionLogprobs, chat_logprobs, prompt_logprobs

Choice = dict[str, Any]


class ReplyStyle(Protocol):
    """Of one response. `index` is the choice's place in it, over all its prompts."""

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

    def __init__(self, *, names_ids: bool = False, shows_reasoning: bool = True) -> None:
        """`names_ids`: log probabilities name tokens by their ids."""
        self._names_ids = names_ids
        self._shows_reasoning = shows_reasoning

    def whole(self, index: int, choice: TextChoice) -> Choice:
        content = None if choice.tool_calls and not choice.text else choice.text
        message: dict[str, Any] = {"role": "assistant", "content": content, "refusal": None}
        message |= self._reasoning(choice.reasoning)
        if choice.tool_calls:
            message["tool_calls"] = [_called(call) for call in choice.tool_calls]
        logprobs = self._logprobs(choice.logprobs)
        return {
            "index": index,
            "message": message,
            "logprobs": logprobs,
            **_ending(choice),
            **_extras(choice),
            **_of_prompt(choice),
        }

    def opening(self, index: int) -> Choice | None:
        return _unfinished(index, {"role": "assistant", "content": ""})

    def pieces(self, index: int, delta: Delta) -> Iterator[Choice]:
        news = self._news(delta)
        if news or delta.token_ids or delta.logprobs:
            unfinished = _unfinished(index, news or {"content": ""})
            yield {**unfinished, "logprobs": self._logprobs(delta.logprobs), **_token_ids(delta)}
        if delta.finish_reason is not None:
            yield {"index": index, "delta": {}, "logprobs": None, **_ending(delta), **_score(delta)}

    def _news(self, delta: Delta) -> dict[str, Any]:
        news: dict[str, Any] = self._reasoning(delta.reasoning)
        if delta.text:
            news["content"] = delta.text
        if delta.tool_calls:
            news["tool_calls"] = [_call_piece(piece) for piece in delta.tool_calls]
        return news

    def _reasoning(self, text: str) -> dict[str, Any]:
        """Under both names that clients know."""
        return {"reasoning_content": text, "reasoning": text} if text and self._shows_reasoning else {}

    def _logprobs(self, places: list[PlaceLogprobs] | None) -> Choice | None:
        return None if places is None else chat_logprobs(places, names_ids=self._names_ids)


class CompletionStyle:
    """Plain text; the last text of a choice has the finish reason."""

    object = "text_completion"
    chunk_object = "text_completion"
    prompt_ids_in_choices = True

    def __init__(self, *, names_ids: bool = False, echoes: bool = False, shows_prompt: bool = True) -> None:
        """`names_ids`: log probabilities name tokens by their ids. `echoes`: they begin with the prompt's.
        `shows_prompt`: those have a list of their own, if there are any."""
        self._names_ids = names_ids
        self._echoes = echoes
        self._shows_prompt = shows_prompt
        self._logprobs: dict[int, CompletionLogprobs] = {}

    def whole(self, index: int, choice: TextChoice) -> Choice:
        return {**self._text(index, choice), **(_of_prompt(choice) if self._shows_prompt else {})}

    def opening(self, index: int) -> Choice | None:
        return None

    def pieces(self, index: int, delta: Delta) -> Iterator[Choice]:
        if delta.text or delta.token_ids or delta.logprobs or delta.finish_reason is not None:
            yield self._text(index, delta)

    def _text(self, index: int, piece: TextChoice | Delta) -> Choice:
        logprobs = self._logprobs_of(index, piece)
        return {"index": index, "text": piece.text, "logprobs": logprobs, **_ending(piece), **_extras(piece)}

    def _logprobs_of(self, index: int, piece: TextChoice | Delta) -> Choice | None:
        if piece.logprobs is None:
            return None
        places: Sequence[PlaceLogprobs] = piece.logprobs
        if self._echoes:
            places = [*(piece.prompt_logprobs or ()), *places]
        so_far = self._logprobs.setdefault(index, CompletionLogprobs(names_ids=self._names_ids))
        return so_far.push(places)


def _called(call: ToolCall) -> Choice:
    return {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": call.arguments}}


def _call_piece(piece: ToolCallPiece) -> Choice:
    """Clients join the arguments, and take the rest from the first piece, the only one to have it."""
    function = {"arguments": piece.arguments}
    if not piece.name:
        return {"index": piece.index, "function": function}
    function = {"name": piece.name, **function}
    return {"index": piece.index, "id": piece.id, "type": "function", "function": function}


def _unfinished(index: int, delta: dict[str, Any]) -> Choice:
    return {"index": index, "delta": delta, "logprobs": None, "finish_reason": None}


def _ending(piece: TextChoice | Delta) -> Choice:
    return {"finish_reason": piece.finish_reason, "stop_reason": piece.stop_reason}


def _extras(piece: TextChoice | Delta) -> Choice:
    """What is there only where it is asked for."""
    return {**_token_ids(piece), **_score(piece)}


def _of_prompt(choice: TextChoice) -> Choice:
    return {} if choice.prompt_logprobs is None else {"prompt_logprobs": prompt_logprobs(choice.prompt_logprobs)}


def _token_ids(piece: TextChoice | Delta) -> Choice:
    return {} if piece.token_ids is None else {"token_ids": piece.token_ids}


def _score(piece: TextChoice | Delta) -> Choice:
    return {} if piece.score is None else {"score": piece.score}
