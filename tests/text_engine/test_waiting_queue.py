"""The queue against a sorted list."""

from __future__ import annotations

import random

import pytest

from vfastml.text_engine.sampling import Sampling
from vfastml.text_engine.sequence import Sequence
from vfastml.text_engine.waiting_queue import WaitingQueue


def make_sequence(arrival: int, priority: int) -> Sequence:
    return Sequence(f"r{arrival}", [1], Sampling(max_tokens=1), arrival=arrival, priority=priority)


@pytest.mark.parametrize("seed", range(5))
def test_first_is_always_the_smallest(seed: int) -> None:
    rng = random.Random(seed)
    queue, waiting, away = WaitingQueue(), list[Sequence](), list[Sequence]()
    for arrival in range(500):
        choice = rng.random()
        if choice < 0.5 or not waiting:
            waiting.append(make_sequence(arrival, rng.choice([0, 1])))
            queue.add(waiting[-1])
        elif choice < 0.9:
            away.append(waiting.pop(rng.randrange(len(waiting))))
            queue.remove(away[-1])
        elif away:  # preempted: back to its old place
            waiting.append(away.pop())
            queue.add(waiting[-1])
        assert len(queue) == len(waiting)
        assert set(queue) == set(waiting)
        if waiting:
            assert queue.first is min(waiting, key=lambda sequence: sequence.order)


def test_removed_ones_do_not_pile_up_behind_the_first() -> None:
    queue = WaitingQueue()
    queue.add(make_sequence(0, 0))
    for arrival in range(1, 1000):
        sequence = make_sequence(arrival, 0)
        queue.add(sequence)
        queue.remove(sequence)
    assert len(queue._heap) < 5


def test_what_does_not_wait_cannot_be_removed() -> None:
    with pytest.raises(KeyError):
        WaitingQueue().remove(make_sequence(0, 0))
