"""A tool call as Python writes it, such as `get_weather(city="Paris")`; its arguments are given out at its end."""

from __future__ import annotations

import ast
import json
from collections.abc import Callable
from typing import Any

_LONGEST_CALL = 64 << 10
_WORDS = {"true": True, "false": False, "null": None}
"""JSON's own words, which models mix with Python's."""
_QUOTES = "\"'"


class PythonCall:
    """CallReader. Values are literals: nothing is executed."""

    def __init__(self, accepts: Callable[[str], bool]) -> None:
        self.name: str | None = None
        self.has_ended = False
        self.has_failed = False
        self._accepts = accepts
        self._parts: list[str] = []
        self._length = 0
        self._depth = 0
        self._quote = ""
        self._is_escaped = False
        self._arguments = ""

    def push(self, text: str) -> str:
        """See CallReader."""
        if self.has_ended or self.has_failed:
            return text
        end = next((place + 1 for place, char in enumerate(text) if self._closes(char)), None)
        taken = text[:end]
        self._parts.append(taken)
        self._length += len(taken)
        if end is None:
            self.has_failed = self._length > _LONGEST_CALL
            return ""
        self._read("".join(self._parts))
        return text[end:]

    def take_arguments(self) -> str:
        """See CallReader."""
        taken, self._arguments = self._arguments, ""
        return taken

    def _closes(self, char: str) -> bool:
        """Whether the character ends the call."""
        if self._is_escaped:
            self._is_escaped = False
        elif self._quote:
            self._is_escaped = char == "\\"
            self._quote = "" if char == self._quote else self._quote
        elif char in _QUOTES:
            self._quote = char
        elif char in "([{":
            self._depth += 1
        elif char in ")]}":
            self._depth -= 1
            return self._depth <= 0
        return False

    def _read(self, text: str) -> None:
        try:
            call = ast.parse(text.strip(), mode="eval").body
            if not isinstance(call, ast.Call) or call.args:
                raise ValueError("no call with named arguments")
            name = ast.unparse(call.func)
            arguments = json.dumps({word.arg or "": _literal(word.value) for word in call.keywords}, ensure_ascii=False)
        except (ValueError, SyntaxError, TypeError, RecursionError, MemoryError):
            self.has_failed = True
            return
        if self._accepts(name):
            self.name, self._arguments, self.has_ended = name, arguments, True
        else:
            self.has_failed = True


def _literal(node: ast.expr) -> Any:
    if isinstance(node, ast.Name) and node.id in _WORDS:
        return _WORDS[node.id]
    if isinstance(node, ast.List | ast.Tuple):
        return [_literal(item) for item in node.elts]
    if isinstance(node, ast.Dict):
        return {_key(key): _literal(value) for key, value in zip(node.keys, node.values, strict=True)}
    return ast.literal_eval(node)


def _key(node: ast.expr | None) -> str:
    key = None if node is None else ast.literal_eval(node)
    if not isinstance(key, str):
        raise ValueError("a key that is no string")
    return key
