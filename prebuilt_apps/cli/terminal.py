"""Text of strangers on its way to a terminal, and what is typed on its way back."""

from __future__ import annotations

import io
import sys

from vfastml.utils.log_formats import ESCAPED

_ESCAPED = {code: escaped for code, escaped in ESCAPED.items() if chr(code) not in "\n\t"}


def shown(text: str) -> str:
    """The text with every control character but newline and tab written out, so that it cannot drive a terminal. Text
    for a pipe is treated alike: it may end in a terminal all the same."""
    return text.translate(_ESCAPED)


def show(text: str) -> None:
    """Writes to stdout at once."""
    sys.stdout.write(shown(text))
    sys.stdout.flush()


def complain(prog: str, sentence: str) -> None:
    """One line on stderr."""
    sys.stderr.write(f"{prog}: {shown(' '.join(sentence.split()))}\n")


def tolerate_any_text() -> None:
    """From now on, input that is not text of the locale and output that the locale cannot show are replaced."""
    for stream, errors in ((sys.stdin, "replace"), (sys.stdout, "backslashreplace")):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors=errors)


def is_conversation() -> bool:
    """Whether someone sits there who types and reads."""
    return sys.stdin.isatty() and sys.stdout.isatty()
