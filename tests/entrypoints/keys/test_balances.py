"""Token buckets, of one process and of several."""

from __future__ import annotations

import subprocess
import sys

import pytest

from vfastml.entrypoints.keys import balances
from vfastml.entrypoints.keys.balances import Balances, Meter, shared_memory

ANN, BOB = b"a" * 32, b"b" * 32


class Clock:
    def __init__(self) -> None:
        self.now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def clock() -> Clock:
    return Clock()


def test_a_bucket_holds_what_a_minute_brings(clock: Clock) -> None:
    held = Balances(clock=clock)
    assert [held.take(ANN, Meter.REQUESTS, 3, 1, 1).balance for _ in range(5)] == [3, 2, 1, 0, 0]
    level = held.level(ANN, Meter.REQUESTS, 3)
    assert (level.balance, level.seconds_until(1), level.seconds_until_full) == (0, 20, 60)
    clock.now_s += 30
    assert held.level(ANN, Meter.REQUESTS, 3).balance == pytest.approx(1.5)
    clock.now_s += 1e6
    assert held.level(ANN, Meter.REQUESTS, 3).balance == 3


def test_what_is_taken_beyond_is_owed(clock: Clock) -> None:
    held = Balances(clock=clock)
    held.take(ANN, Meter.TOKENS, 60, 100)
    level = held.level(ANN, Meter.TOKENS, 60)
    assert (level.balance, level.seconds_until(0), level.seconds_until_full) == (-40, 40, 100)
    clock.now_s += 40
    assert held.level(ANN, Meter.TOKENS, 60).balance == pytest.approx(0)


def test_keys_and_meters_do_not_touch_each_other(clock: Clock) -> None:
    held = Balances(clock=clock)
    held.take(ANN, Meter.REQUESTS, 10, 4)
    assert held.level(ANN, Meter.TOKENS, 10).balance == 10
    assert held.level(BOB, Meter.REQUESTS, 10).balance == 10
    assert held.level(ANN, Meter.REQUESTS, 10).balance == 6


def test_a_limit_may_change(clock: Clock) -> None:
    held = Balances(clock=clock)
    held.take(ANN, Meter.REQUESTS, 100, 10)
    assert held.level(ANN, Meter.REQUESTS, 60).balance == 60
    held.take(ANN, Meter.REQUESTS, 60, 60)
    clock.now_s += 1
    assert held.level(ANN, Meter.REQUESTS, 600).balance == pytest.approx(10)


def test_keys_that_begin_alike_have_places_of_their_own(clock: Clock) -> None:
    held = Balances(clock=clock)
    secrets = [b"same be" + bytes([0]) * 24 + bytes([number]) for number in range(20)]
    for number, secret in enumerate(secrets):
        held.take(secret, Meter.REQUESTS, 100, number)
    assert [held.level(secret, Meter.REQUESTS, 100).balance for secret in secrets] == [100 - n for n in range(20)]


def test_a_key_without_a_place_shares_one(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(balances, "_MOST_TRIES", 1)
    held = Balances(clock=clock)
    first, second = (b"same 8 b" + bytes([number]) * 24 for number in (1, 2))
    held.take(first, Meter.REQUESTS, 10, 10)
    assert held.level(second, Meter.REQUESTS, 10).balance == 0


TAKER = """
import sys
from vfastml.entrypoints.keys.balances import Balances, Meter
held = Balances(int(sys.argv[1]), clock=lambda: 1000.0)
taken = sum(held.take(b"a" * 32, Meter.REQUESTS, 1000, 1, 1).balance >= 1 for _ in range(1000))
held.take(b"a" * 32, Meter.TOKENS, 1000, taken)
print(taken)
"""


def test_processes_take_from_the_same_ones() -> None:
    with shared_memory() as file:
        command = [sys.executable, "-c", TAKER, str(file.fileno())]
        takers = [
            subprocess.Popen(command, pass_fds=[file.fileno()], stdout=subprocess.PIPE, text=True) for _ in range(3)
        ]
        taken = [int(taker.communicate()[0]) for taker in takers]
        held = Balances(file.fileno(), clock=lambda: 1000.0)
        assert sum(taken) == 1000
        assert held.level(ANN, Meter.REQUESTS, 1000).balance == 0
        assert held.level(ANN, Meter.TOKENS, 1000).balance == 0
