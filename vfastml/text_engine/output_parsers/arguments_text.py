"""The arguments of a tool call, as clients get them."""

from __future__ import annotations

import json
from typing import Any

_NO_ARGUMENTS = "{}"


class ArgumentsText:
    """JSON text of a call's arguments as it comes. What clients get is always an object's: some models write that
    object as a string, or null for none."""

    def __init__(self) -> None:
        self._parts: list[str] = []
        self._has_any = False
        self._is_object = False

    def add(self, text: str) -> None:
        """More of the value."""
        if text and not self._has_any:
            self._has_any, self._is_object = True, text.startswith("{")
        if text:
            self._parts.append(text)

    def end(self) -> None:
        """The value is complete, or there is none."""
        if self._is_object:
            return
        inner = decoded("".join(self._parts)) if self._has_any else None
        value = decoded(inner) if isinstance(inner, str) else None
        self._parts = [json.dumps(value) if isinstance(value, dict) else _NO_ARGUMENTS]
        self._has_any = self._is_object = True

    def take(self) -> str:
        """What can be given out now and was not."""
        if not self._is_object:
            return ""
        taken, self._parts = "".join(self._parts), []
        return taken


def decoded(raw: str) -> Any:
    """The value; None for what is no JSON."""
    try:
        return json.loads(raw)
    except (ValueError, RecursionError):
        return None
