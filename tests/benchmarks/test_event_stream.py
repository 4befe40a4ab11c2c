from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.event_stream import EventParser

STREAM = (
    b': hello\n\ndata: {"a": 1}\n\ndata:{"b": 2}\r\n\r\nevent: x\rid: 3\rdata: one\rdata: two\r\r'
    b"data\n\nretry: 5\n\ndata: not ended"
)
EVENTS = [b'{"a": 1}', b'{"b": 2}', b"one\ntwo", b""]


@given(st.lists(st.integers(0, len(STREAM)), max_size=12))
def test_events_do_not_depend_on_where_the_bytes_are_cut(cuts: list[int]) -> None:
    parser = EventParser()
    edges = [0, *sorted(cuts), len(STREAM)]
    pieces = [STREAM[start:end] for start, end in pairwise(edges)]
    assert [event for piece in pieces for event in parser.feed(piece)] == EVENTS


@pytest.mark.parametrize("line_end", [b"\n", b"\r\n", b"\r"])
def test_an_event_is_there_with_the_last_byte_of_its_empty_line(line_end: bytes) -> None:
    parser = EventParser()
    whole = b"data: now" + 2 * line_end
    events = [parser.feed(whole[at : at + 1]) for at in range(len(whole))]
    ended_at = len(b"data: now" + line_end)
    assert events[ended_at] == [b"now"]
    assert [event for piece in events for event in piece] == [b"now"]
