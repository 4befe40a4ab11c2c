"""An end to a chat template that goes round and round: its author and the author of the messages are two people."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any

from vfastml.errors import InvalidRequestError

MOST_LINES = 2_000_000
"""Of a template, run through for one prompt: some seconds. The longest chats of ordinary templates need a tenth."""
_OF_TEMPLATES = "<template>"
"""What jinja calls the file of a compiled template."""

_Trace = Callable[[FrameType, str, Any], Any]


@contextlib.contextmanager
def bounded_rendering() -> Iterator[None]:
    """Raises InvalidRequestError in the midst of a template of this thread that has run through too many lines. They
    are counted, not seconds: what is refused does not depend on what else the machine does."""
    before = sys.gettrace()
    sys.settrace(_counting(MOST_LINES))
    try:
        yield
    finally:
        sys.settrace(before)


def _counting(most: int) -> _Trace:
    left = most

    def on_line(frame: FrameType, event: str, arg: Any) -> _Trace:
        nonlocal left
        left -= 1
        if left < 0:
            raise InvalidRequestError("The messages keep the model's chat template busy too long.", param="messages")
        return on_line

    def on_call(frame: FrameType, event: str, arg: Any) -> _Trace | None:
        return on_line if frame.f_code.co_filename == _OF_TEMPLATES else None

    return on_call
