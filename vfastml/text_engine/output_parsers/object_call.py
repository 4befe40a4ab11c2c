"""A tool call as a JSON object, {"name": ..., "arguments": {...}}, whose arguments are given out as they come."""

from __future__ import annotations

from collections.abc import Callable

from vfastml.text_engine.output_parsers.arguments_text import ArgumentsText, decoded
from vfastml.text_engine.output_parsers.json_value import JsonValue

_ARGUMENTS = ("arguments", "parameters")


class ObjectCall:
    """CallReader. Other keys are passed over; `accepts` says whether there can be a function of a name."""

    def __init__(self, accepts: Callable[[str], bool]) -> None:
        self.name: str | None = None
        self.has_ended = False
        self.has_failed = False
        self._accepts = accepts
        self._read = self._read_opening
        self._value = JsonValue()
        self._parts: list[str] = []
        """Of the key or value that is being read."""
        self._key = ""
        self._has_arguments = False
        self._arguments = ArgumentsText()

    def push(self, text: str) -> str:
        """See CallReader."""
        while text and not (self.has_ended or self.has_failed):
            text = self._read(text)
        return text

    def take_arguments(self) -> str:
        """See CallReader."""
        return "" if self.name is None else self._arguments.take()

    def _read_opening(self, text: str) -> str:
        self._read = self._read_key
        return text[1:]

    def _read_key(self, text: str) -> str:
        if not self._parts:
            text = text.lstrip(" \t\r\n,")
            if text.startswith("}"):
                return self._end(text[1:])
            if text and not text.startswith('"'):
                return self._fail(text)
        return self._read_value_into(text, self._on_key)

    def _on_key(self, raw: str) -> None:
        self._key = str(decoded(raw))
        self._read = self._read_colon

    def _read_colon(self, text: str) -> str:
        text = text.lstrip()
        if not text:
            return ""
        if not text.startswith(":"):
            return self._fail(text)
        self._read = self._read_value
        return text[1:]

    def _read_value(self, text: str) -> str:
        if not self._parts:
            text = text.lstrip()
        if self._key not in _ARGUMENTS or self._has_arguments:
            return self._read_value_into(text, self._on_value)
        taken, rest = self._value.push(text)
        self._arguments.add(taken)
        self._parts.append(taken)
        if self._value.is_broken:
            return self._fail(rest)
        if self._value.has_ended:
            self._arguments.end()
            self._has_arguments = True
            self._next()
        return rest

    def _on_value(self, raw: str) -> None:
        if self._key == "name" and self.name is None:
            name = decoded(raw)
            if not isinstance(name, str) or not name.isprintable() or not self._accepts(name):
                self.has_failed = True
                return
            self.name = name
        self._read = self._read_key

    def _read_value_into(self, text: str, take: Callable[[str], None]) -> str:
        taken, rest = self._value.push(text)
        if taken:
            self._parts.append(taken)
        if self._value.is_broken:
            return self._fail(rest)
        if self._value.has_ended:
            raw = "".join(self._parts)
            self._next()
            take(raw)
        return rest

    def _next(self) -> None:
        self._value = JsonValue()
        self._parts = []
        self._read = self._read_key

    def _end(self, rest: str) -> str:
        if self.name is None:
            return self._fail(rest)
        self._arguments.end()
        self.has_ended = True
        return rest

    def _fail(self, rest: str) -> str:
        self._arguments.end()
        self.has_failed = True
        return rest
