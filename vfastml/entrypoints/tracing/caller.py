"""The trace that a client says its request belongs to: the header `traceparent` of W3C's Trace Context."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

_HEADER = b"traceparent"
_FORM = re.compile(rb"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-[!-~]*)?")
_SAMPLED = 1


@dataclass(frozen=True, slots=True)
class Caller:
    """The client's span. Its `tracestate` is not read: nothing is passed on over HTTP from here, and it is a text."""

    trace_id: int
    span_id: int
    is_sampled: bool
    """Whether the client records its part."""

    @property
    def trace_id_text(self) -> str:
        """As it is written."""
        return f"{self.trace_id:032x}"


def caller_of(headers: Iterable[tuple[bytes, bytes]]) -> Caller | None:
    """None without the header, and for one that is malformed or there twice: then the request begins a trace, as the
    standard has it."""
    values = [value for name, value in headers if name == _HEADER]
    return _parsed(values[0]) if len(values) == 1 else None


def _parsed(value: bytes) -> Caller | None:
    found = _FORM.fullmatch(value)
    if found is None:
        return None
    version, trace_id, span_id, flags, rest = found.groups()
    if version == b"ff" or (version == b"00" and rest is not None):
        return None
    caller = Caller(int(trace_id, 16), int(span_id, 16), bool(int(flags, 16) & _SAMPLED))
    return caller if caller.trace_id and caller.span_id else None
