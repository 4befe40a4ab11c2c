"""A tool call as a name, a marker and the arguments' JSON, such as `get_weather[ARGS]{"city": "Paris"}`."""

from __future__ import annotations

from collections.abc import Callable

from vfastml.text_engine.output_parsers.arguments_text import ArgumentsText
from vfastml.text_engine.output_parsers.json_value import JsonValue

_LONGEST_NAME = 200
"""With the id that some models write behind the name, `[CALL_ID]...`."""


class NamedCall:
    """CallReader."""

    def __init__(self, accepts: Callable[[str], bool], marker: str) -> None:
        self.name: str | None = None
        self.has_ended = False
        self.has_failed = False
        self._accepts = accepts
        self._marker = marker
        self._head = ""
        self._value = JsonValue()
        self._arguments = ArgumentsText()

    def push(self, text: str) -> str:
        """See CallReader."""
        if self.has_ended or self.has_failed:
            return text
        if self.name is None:
            text = self._read_name(text)
        if self.name is None or not text:
            return text
        taken, rest = self._value.push(text)
        self._arguments.add(taken)
        if self._value.is_broken:
            self._arguments.end()
            self.has_failed = True
        elif self._value.has_ended:
            self._arguments.end()
            self.has_ended = True
        return rest

    def take_arguments(self) -> str:
        """See CallReader."""
        return "" if self.name is None else self._arguments.take()

    def _read_name(self, text: str) -> str:
        head, found, rest = (self._head + text).partition(self._marker)
        self._head = head
        # What may be a beginning of the marker is no part of the name yet.
        certain = len(head) if found else len(head) - len(self._marker) + 1
        if certain > _LONGEST_NAME:
            self.has_failed = True
            return rest
        if not found:
            return ""
        rest = rest.lstrip()
        if not rest:  # white space only, so far
            self._head = head + self._marker
            return ""
        name = head.split("[", 1)[0].strip()
        if self._accepts(name):
            self.name = name
            return rest
        self.has_failed = True
        return rest
