"""One JSON value as it comes, to find its end: nothing of it is understood."""

from __future__ import annotations

_OPENING, _CLOSING = "{[", "}]"
_SCALAR_ENDS = ",}] \t\r\n"


class JsonValue:
    """The value begins with the first character. An object, a list or a string ends with its last character; a number
    or a word before the character that follows it."""

    def __init__(self) -> None:
        self.has_ended = False
        self._has_begun = False
        self._depth = 0
        self._in_string = False
        self._is_escaped = False

    def push(self, text: str) -> tuple[str, str]:
        """What of the text belongs to the value, and the rest."""
        for place, char in enumerate(text):
            if not self._has_begun:
                self._begin(char)
            elif self._in_string:
                self._within_string(char)
            elif self._depth:
                self._within(char)
            elif char in _SCALAR_ENDS:
                self.has_ended = True
                return text[:place], text[place:]
            if self.has_ended:
                return text[: place + 1], text[place + 1 :]
        return text, ""

    def _begin(self, char: str) -> None:
        self._has_begun = True
        self._in_string = char == '"'
        self._depth = int(char in _OPENING)

    def _within(self, char: str) -> None:
        if char == '"':
            self._in_string = True
        elif char in _OPENING:
            self._depth += 1
        elif char in _CLOSING:
            self._depth -= 1
            self.has_ended = self._depth == 0

    def _within_string(self, char: str) -> None:
        if self._is_escaped:
            self._is_escaped = False
        elif char == "\\":
            self._is_escaped = True
        elif char == '"':
            self._in_string = False
            self.has_ended = self._depth == 0
