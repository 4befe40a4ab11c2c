"""A tool call as Python writes it, such as `get_weather(city="Paris")`; its arguments are given out at its end."""

from __future__ import annotations

import ast
import json
from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import Any

_LONGEST_CALL = 64 << 10
_WORDS = {"true": True, "false": False, "null": None}
"""JSON's own words, which models mix with Python's."""
_QUOTES = "\"'"


class PythonCall:
    """CallReader. Names of functions and arguments may be any that JSON could have; values are literals, and nothing is
    executed."""

    def __init__(self, accepts: Callable[[str], bool]) -> None:
        self.name: str | None = None
        self.has_ended = False
        self.has_failed = False
        self._accepts = accepts
        self._parts: list[str] = []
        self._length = 0
        self._cuts: list[int] = []
        """Places of the bracket that opens the arguments, of the commas between them, and of the bracket that closes
        them."""
        self._depth = 0
        self._quote = ""
        self._is_escaped = False
        self._arguments = ""

    def push(self, text: str) -> str:
        """See CallReader."""
        if self.has_ended or self.has_failed:
            return text
        end = next((place + 1 for place, char in enumerate(text, self._length) if self._closes(char, place)), None)
        taken = text if end is None else text[: end - self._length]
        self._parts.append(taken)
        self._length += len(taken)
        if end is not None:
            self._read("".join(self._parts))
        self.has_failed = self.has_failed or self._length > _LONGEST_CALL
        return text[len(taken) :]

    def take_arguments(self) -> str:
        """See CallReader."""
        taken, self._arguments = self._arguments, ""
        return taken

    def _closes(self, char: str, place: int) -> bool:
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
            if self._depth == 1:
                self._cuts.append(place)
        elif char in ")]}":
            self._depth -= 1
            if self._depth <= 0:
                self._cuts.append(place)
                return True
        elif char == "," and self._depth == 1:
            self._cuts.append(place)
        return False

    def _read(self, text: str) -> None:
        try:
            arguments = dict(self._read_arguments(text))
            self._arguments = _json(arguments)
        except (ValueError, SyntaxError, TypeError, RecursionError, MemoryError):
            self.has_failed = True
            return
        name = text[: self._cuts[0]].strip()
        if name.isprintable() and self._accepts(name):
            self.name, self.has_ended = name, True
        else:
            self.has_failed = True

    def _read_arguments(self, text: str) -> Iterator[tuple[str, Any]]:
        if text[self._cuts[0]] + text[-1] != "()":
            raise ValueError("no call")
        for before, after in pairwise(self._cuts):
            argument = text[before + 1 : after].strip()
            if not argument and after == self._cuts[-1]:
                return  # none at all, or none behind the last comma
            key, equals, value = argument.partition("=")
            if not (equals and key.strip().replace("-", "_").isidentifier()):
                raise ValueError("an argument without a name")
            yield key.strip(), _literal(ast.parse(value.strip(), mode="eval").body)


def _json(arguments: dict[str, Any]) -> str:
    text = json.dumps(arguments, ensure_ascii=False, allow_nan=False)
    # Python's escapes may spell a character beyond 16 bits by its two halves.
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


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
