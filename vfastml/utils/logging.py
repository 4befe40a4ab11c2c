"""Log lines of one kind for every process: one line each, through the standard library's logging."""

from __future__ import annotations

import logging

LEVELS = ("debug", "info", "warning", "error", "critical")
_OTHER_NAMES = {"warn": "warning"}

ESCAPED = {code: f"\\x{code:02x}" for code in (*range(32), 127, *range(128, 160), 0x2028, 0x2029)}
"""For str.translate: control characters and line ends, written out."""


class OneLineFormatter(logging.Formatter):
    """Escapes control characters in the message, so that text sent by a client cannot forge a line or drive a terminal.
    A traceback that we log ourselves keeps its lines."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)-7s %(name)s: %(message)s")

    def formatMessage(self, record: logging.LogRecord) -> str:
        return super().formatMessage(record).translate(ESCAPED)


def checked_level(name: str) -> str:
    """The one of LEVELS that is meant: in any case, `warn` for warning. Raises ValueError for an unknown one."""
    level = _OTHER_NAMES.get(name.lower(), name.lower())
    if level not in LEVELS:
        raise ValueError(f"unknown log level {name!r}: expected one of {', '.join(LEVELS)}")
    return level


def configure_logging(level: str) -> None:
    """Show the records of the `vfastml` loggers from `level` up, and other libraries' from warning up, on stderr.

    Handlers that the application has set up itself are kept, and ours is not added. Raises ValueError for an unknown
    level.
    """
    level = checked_level(level)
    root = logging.getLogger()
    if not root.handlers:
        handler = logging.StreamHandler()
        handler.setFormatter(OneLineFormatter())
        root.addHandler(handler)
    logging.getLogger("vfastml").setLevel(level.upper())
