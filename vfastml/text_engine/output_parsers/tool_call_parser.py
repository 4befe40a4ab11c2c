"""Finds the tool calls in an answer, whatever form they have."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from vfastml.engine.dispatch_replies import ToolCallPiece
from vfastml.text_engine.output_parsers.call_reader import CallReader
from vfastml.text_engine.output_parsers.markers import (
    MAX_SPACE,
    first_marker,
    may_become,
    split_at_hold,
    without_end_space,
)
from vfastml.text_engine.output_parsers.output_parser import Parsed

_SEPARATORS = " \t\r\n,;"
_BETWEEN = f"{_SEPARATORS}[]"
"""What may stand between two calls, and around them."""
_LONGEST_GAP = 1000
"""Characters after a marker in which no call has begun."""


@dataclass(frozen=True, slots=True)
class CallSyntax:
    """Where calls stand in a text."""

    new_reader: Callable[[], CallReader]
    begins_call: Callable[[str], bool]
    """Whether a call may begin with this character."""
    markers: tuple[str, ...] = ()
    """Calls come after one of these."""
    ends: tuple[str, ...] = ()
    """And before one of these, or the end of the text."""
    bare: str = ""
    """Calls may also stand at the beginning of the text, without a marker: with one of these characters it may begin
    then."""


class ToolCallParser:
    """OutputParser: calls and the text around them, without the white space between.

    What turns out to be no call is text. Of more than `max_calls`, the rest is left out.
    """

    in_reasoning = False

    def __init__(self, syntax: CallSyntax, new_id: Callable[[], str], *, max_calls: int) -> None:
        self._syntax = syntax
        self._new_id = new_id
        self._max_calls = max_calls
        self._num_calls = 0
        self._state = self._at_start if syntax.bare else self._in_text
        self._held = ""
        """To be looked at again when more has come."""
        self._raw = ""
        """What has been read of something that may turn out to be no call."""
        self._reader: CallReader | None = None
        self._is_open = False
        """The reader's call has been given out, in part at least."""
        self._follows_call = False
        """What has been read lately stands behind a call."""

    def push(self, text: str) -> Parsed:
        """See OutputParser."""
        text, self._held = self._held + text, ""
        parsed = Parsed()
        while text:
            news, text = self._state(text)
            parsed += news
        return parsed

    def flush(self) -> Parsed:
        """See OutputParser."""
        held, self._held = self._raw + self._held, ""
        self._raw = ""
        if self._is_open:
            return Parsed()
        if self._num_calls and not held.strip():
            return Parsed()
        return Parsed(self._behind_call(held) if self._follows_call and self._state == self._between else held)

    # Each state takes the beginning of the text, and returns what it has to say and the rest.

    def _at_start(self, text: str) -> tuple[Parsed, str]:
        begun = text.lstrip()
        has_little_space = len(text) - len(begun) <= MAX_SPACE
        if not begun and has_little_space:
            self._held = text
            return Parsed(), ""
        is_bare = has_little_space and begun[0] in self._syntax.bare
        self._state = self._between if is_bare else self._in_text
        return Parsed(), text

    def _in_text(self, text: str) -> tuple[Parsed, str]:
        found = first_marker(text, self._syntax.markers)
        if found is None:
            certain, self._held = split_at_hold(text, self._syntax.markers)
            return Parsed(certain), ""
        place, marker = found
        before = without_end_space(text[:place])
        self._follows_call = False
        self._raw = text[len(before) : place + len(marker)]
        self._state = self._between
        return Parsed(before), text[place + len(marker) :]

    def _between(self, text: str) -> tuple[Parsed, str]:
        """Behind a marker or a call, and before the next call."""
        for marker in (*self._syntax.ends, *self._syntax.markers):
            if text.startswith(marker):
                return self._pass_marker(text, marker)
        if may_become(text, (*self._syntax.ends, *self._syntax.markers)):
            self._held = text
            return Parsed(), ""
        if text[0] in _BETWEEN and len(self._raw) < _LONGEST_GAP:
            rest = text.lstrip(_SEPARATORS) if text[0] in _SEPARATORS else text[1:]
            self._raw += text[: len(text) - len(rest)]
            return Parsed(), rest
        if self._syntax.begins_call(text[0]):
            self._reader, self._is_open = self._syntax.new_reader(), False
            self._state = self._in_call
            return Parsed(), text
        return self._leave(), text

    def _pass_marker(self, text: str, marker: str) -> tuple[Parsed, str]:
        self._raw += marker
        rest = text[len(marker) :]
        return (self._leave() if marker in self._syntax.ends else Parsed()), rest

    def _leave(self) -> Parsed:
        """Back to text. What was read is text too, but for what ends a list of calls."""
        raw, self._raw = self._raw, ""
        self._state = self._in_text
        return Parsed(self._behind_call(raw) if self._follows_call else raw)

    def _behind_call(self, raw: str) -> str:
        for marker in (*self._syntax.ends, *self._syntax.markers):
            raw = raw.replace(marker, "")
        return raw.lstrip(_SEPARATORS).removeprefix("]").lstrip(_SEPARATORS)

    def _in_call(self, text: str) -> tuple[Parsed, str]:
        reader = self._reader
        assert reader is not None
        rest = reader.push(text)
        news = self._news(reader)
        if not self._is_open:
            self._raw += text[: len(text) - len(rest)]
        if reader.has_ended or reader.has_failed:
            self._reader, self._is_open = None, False
            if reader.has_ended:
                self._raw, self._follows_call = "", True
                self._state = self._between if self._num_calls < self._max_calls else self._done
            else:
                news += self._leave()
        return news, rest

    def _news(self, reader: CallReader) -> Parsed:
        if reader.name is None:
            return Parsed()
        index, arguments = self._num_calls - self._is_open, reader.take_arguments()
        if self._is_open:
            return Parsed(tool_calls=(ToolCallPiece(index, arguments=arguments),)) if arguments else Parsed()
        self._raw = ""
        self._is_open = True
        self._num_calls += 1
        first = ToolCallPiece(index, self._new_id(), reader.name)
        return Parsed(tool_calls=(first, ToolCallPiece(index, arguments=arguments)) if arguments else (first,))

    def _done(self, text: str) -> tuple[Parsed, str]:
        """No more calls are wanted, and what a model writes after its calls is their result, which it cannot know."""
        return Parsed(), ""
