"""Log lines of one kind for every process: one line each, through the standard library's logging."""

from __future__ import annotations

import logging
import sys
import threading
from collections.abc import Callable
from types import TracebackType

from vfastml.utils.log_formats import JsonFormatter, OneLineFormatter

LEVELS = ("debug", "info", "warning", "error", "critical")
LOG_FORMATS = ("text", "json")
_OTHER_NAMES = {"warn": "warning"}


def checked_level(name: str) -> str:
    """The one of LEVELS that is meant: in any case, `warn` for warning. Raises ValueError for an unknown one."""
    level = _OTHER_NAMES.get(name.lower(), name.lower())
    if level not in LEVELS:
        raise ValueError(f"unknown log level {name!r}: expected one of {', '.join(LEVELS)}")
    return level


def checked_log_format(name: str) -> str:
    """The name, if it is one of LOG_FORMATS. Raises ValueError for another one."""
    if name not in LOG_FORMATS:
        raise ValueError(f"unknown log format {name!r}: expected one of {', '.join(LOG_FORMATS)}")
    return name


def configure_logging(level: str, log_format: str = "text", process: str = "vfastml") -> None:
    """Show the records of the `vfastml` loggers from `level` up, and other libraries' from warning up, on stderr.
    `process` is what lines of JSON say that this process is; warnings and errors that nobody has caught are such lines
    too.

    Handlers that the application has set up itself are kept, and ours is not added. Raises ValueError for an unknown
    level or format.
    """
    level, as_json = checked_level(level), checked_log_format(log_format) == "json"
    root = logging.getLogger()
    if not root.handlers:
        handler = logging.StreamHandler()
        handler.setFormatter(JsonFormatter(process) if as_json else OneLineFormatter())
        root.addHandler(handler)
        if as_json:
            _log_what_is_uncaught()
    if any(isinstance(handler.formatter, JsonFormatter | OneLineFormatter) for handler in root.handlers):
        _unite_loggers()
    logging.getLogger("vfastml").setLevel(level.upper())


def _unite_loggers() -> None:
    """Libraries that write on stderr by themselves, as transformers does, write as all others do from now on."""
    for logger in list(logging.root.manager.loggerDict.values()):
        if not isinstance(logger, logging.Logger):
            continue
        for handler in [handler for handler in logger.handlers if _is_stderr(handler)]:
            logger.removeHandler(handler)
            logger.propagate = True


def _is_stderr(handler: logging.Handler) -> bool:
    return isinstance(handler, logging.StreamHandler) and handler.stream is sys.stderr


def _log_what_is_uncaught() -> None:
    """What the interpreter itself would write on stderr, over several lines."""
    logging.captureWarnings(True)
    before = sys.excepthook

    def log_last(kind: type[BaseException], error: BaseException, traceback: TracebackType | None) -> None:
        if issubclass(kind, KeyboardInterrupt):
            before(kind, error, traceback)
        else:
            _uncaught("The process ends with an error that nobody has caught.", error)

    sys.excepthook = log_last
    threading.excepthook = _told("A thread has ended with an error.")
    sys.unraisablehook = _told("An error could not be raised.")


def _told(message: str) -> Callable[[threading.ExceptHookArgs | sys.UnraisableHookArgs], None]:
    return lambda args: _uncaught(message, args.exc_value)


def _uncaught(message: str, error: BaseException | None) -> None:
    logging.getLogger("vfastml").critical(message, exc_info=error)
