"""OutputParser of a text that is an answer and nothing else."""

from __future__ import annotations

from vfastml.text_engine.output_parsers.output_parser import Parsed


class PlainText:
    """See OutputParser."""

    in_reasoning = False

    def push(self, text: str) -> Parsed:
        """See OutputParser."""
        return Parsed(text)

    def flush(self) -> Parsed:
        """See OutputParser."""
        return Parsed()
