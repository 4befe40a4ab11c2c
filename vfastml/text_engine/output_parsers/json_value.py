"""One JSON value as it comes, to find its end: nothing of it is understood."""

from __future__ import annotations

_CLOSER = {"{": "}", "[": "]"}
_SCALAR_ENDS = ",}] \t\r\n"


class JsonValue:
    """The value begins with the first character. An object, a list or a string ends with its last character; a number
    or a word before the character that follows it."""

    def __init__(self) -> None:
        self.has_ended = False
        self.is_broken = False
        """A bracket was closed that is not open: this is no value."""
        self._has_begun = False
        self._closers: list[str] = []
        """Of the brackets that are open."""
        self._in_string = False
        self._is_escaped = False

    def push(self, text: str) -> tuple[str, str]:
        """What of the text belongs to the value, and the rest."""
        for place, char in enumerate(text):
            if not self._has_begun:
                self._begin(char)
            elif self._in_string:
                self._within_string(char)
            elif self._closers:
                self._within(char)
            elif char in _SCALAR_ENDS:
                self.has_ended = True
                return text[:place], text[place:]
            if self.has_ended or self.is_broken:
                return text[: place + 1], text[place + 1 :]
        return text, ""

    def _begin(self, char: str) -> None:
        self._has_begun = True
        self._in_string = char == '"'
        if char in _CLOSER:
            self._closers.append(_CLOSER[char])

    def _within(self, char: str) -> None:
        if char == '"':
            self._in_string = True
        elif char in _CLOSER:
            self._closers.append(_CLOSER[char])
        elif char in "}]":
            self.is_broken = self._closers.pop() != char
            self.has_ended = not (self._closers or self.is_broken)

    def _within_string(self, char: str) -> None:
        if self._is_escaped:
            self._is_escaped = False
        elif char == "\\":
            self._is_escaped = True
        elif char == '"':
            self._in_string = False
            self.has_ended = not self._closers
