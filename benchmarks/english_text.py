"""English text that every machine with this Python has: no network, nothing to ship."""

from __future__ import annotations

import hashlib
import platform
from dataclasses import dataclass
from pathlib import Path
from pydoc_data.topics import topics

_LEAST_WORDS = 20


@dataclass(frozen=True)
class EnglishText:
    """What is read, and how to know it again."""

    text: str
    source: str

    @property
    def sha256(self) -> str:
        """Of the text in UTF-8: figures of texts that differ do not compare."""
        return hashlib.sha256(self.text.encode()).hexdigest()


def language_reference() -> EnglishText:
    """The prose of Python's language reference, as `pydoc` shows it: paragraphs of some length that stand at the margin
    or below a definition, topics in alphabetical order, without headings, code and grammar. Each release of Python has
    its own."""
    paragraphs = (_prose(block) for topic in sorted(topics) for block in topics[topic].split("\n\n"))
    text = "\n\n".join(dict.fromkeys(filter(None, paragraphs)))  # some stand below several topics
    return EnglishText(text, f"prose of the language reference in Python {platform.python_version()}")


def text_file(path: Path) -> EnglishText:
    """Whatever is in it."""
    return EnglishText(path.read_text(encoding="utf-8"), path.name)


def _prose(block: str) -> str | None:
    indent = len(block) - len(block.lstrip(" "))
    words = block.split()
    is_prose = indent <= 3 and len(words) >= _LEAST_WORDS and words[-1].endswith(".")
    return " ".join(words) if is_prose and "::=" not in block and ">>>" not in block else None
