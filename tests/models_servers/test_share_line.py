"""Whose turn it is at a one-shot model."""

from __future__ import annotations

from collections import Counter

from vfastml.models_servers.share_line import OneShotWork, ShareLine


def line_of(*shares: str, **weights: float) -> ShareLine:
    """An input of each share, in order; ids are their places."""
    line = ShareLine()
    for place, share in enumerate(shares):
        line.add(OneShotWork(str(place), None, share, weights.get(share, 1.0)))
    return line


def order(line: ShareLine) -> list[str]:
    return [line.pop().request_id for _ in range(len(line))]


def test_one_share_is_served_in_the_order_of_arrival() -> None:
    assert order(line_of(*"aaaa")) == ["0", "1", "2", "3"]


def test_shares_take_turns_however_much_one_has_sent() -> None:
    line = line_of(*"aaaaaabb")
    assert [line.pop().share for _ in range(4)] == ["a", "b", "a", "b"]
    assert order(line) == ["2", "3", "4", "5"]


def test_a_share_with_twice_the_weight_gets_twice_as_much() -> None:
    line = line_of(*"aaaaaaaaaabbbbbbbbbb", a=2.0)
    assert Counter(line.pop().share for _ in range(9)) == {"a": 6, "b": 3}


def test_who_comes_late_has_no_credit_and_no_debt() -> None:
    line = line_of(*"aaaaaaaaaa")
    for _ in range(5):
        line.pop()
    for place in range(5):
        line.add(OneShotWork(f"late {place}", None, "b"))
    assert Counter(line.pop().share for _ in range(4)) == {"a": 2, "b": 2}


def test_who_waits_no_more() -> None:
    line = line_of(*"aab")
    assert line.remove("0")
    assert not line.remove("0")
    assert not line.remove("of another")
    assert order(line) == ["1", "2"]


def test_the_oldest_is_looked_for_in_all_shares() -> None:
    line = ShareLine()
    line.add(OneShotWork("r1", None, "a", arrived_s=5.0))
    line.add(OneShotWork("r2", None, "b", arrived_s=3.0))
    assert line.arrived_s == 3.0
    line.remove("r2")
    assert line.arrived_s == 5.0


def test_one_by_one_is_no_way_to_more_than_ones_part() -> None:
    line = line_of(*"b" * 60, b=10.0)
    had: Counter[str] = Counter()
    line.add(OneShotWork("a 0", None, "a"))
    for turn in range(44):
        share = line.pop().share
        had[share] += 1
        if share == "a":
            line.add(OneShotWork(f"a {turn + 1}", None, "a"))
    assert had == {"a": 4, "b": 40}
