"""The books of a model server's queue."""

from __future__ import annotations

import random
from dataclasses import dataclass

import pytest

from vfastml.errors import RateLimitError
from vfastml.models_servers.admission import Admission


@dataclass
class Clock:
    now: float = 1000.0

    def __call__(self) -> float:
        return self.now


def admission(
    max_num_seqs: int, max_waiting: int, max_waiting_tokens: int = 1000, clock: Clock | None = None
) -> Admission:
    made = Admission(max_waiting, max_waiting_tokens, clock or Clock())
    made.size_for(max_num_seqs)
    return made


def is_taken(queue: Admission, name: str, choices: int = 1, tokens: int = 1, share: str = "") -> bool:
    try:
        queue.enter(name, choices, tokens, share)
    except RateLimitError:
        return False
    return True


def taken(queue: Admission, count: int) -> list[str]:
    """Which of so many requests get in."""
    return [name for name in map(str, range(count)) if is_taken(queue, name)]


def has_room(queue: Admission) -> bool:
    try:
        queue.check_room()
    except RateLimitError:
        return False
    return True


def test_as_many_as_run_and_wait_are_taken() -> None:
    queue = admission(8, 8)
    assert len(taken(queue, 100)) == 16
    assert not has_room(queue)


def test_whoever_ends_makes_room_for_one() -> None:
    queue = admission(1, 1)
    assert taken(queue, 3) == ["0", "1"]
    queue.leave("1")
    assert has_room(queue)
    assert is_taken(queue, "again")
    assert not has_room(queue)
    queue.leave("0")
    queue.leave("0")
    queue.leave("unknown")
    assert is_taken(queue, "more")
    assert not is_taken(queue, "too many")


def test_nothing_waits_where_nothing_may() -> None:
    queue = admission(2, 0)
    assert taken(queue, 5) == ["0", "1"]


def test_a_server_without_a_number_runs_one() -> None:
    assert len(taken(admission(0, 4), 9)) == 5


def test_a_request_counts_as_often_as_it_has_choices() -> None:
    queue = admission(4, 4)
    assert is_taken(queue, "a", choices=3)
    assert is_taken(queue, "b", choices=3)
    assert not is_taken(queue, "c", choices=3)
    assert is_taken(queue, "d", choices=2)
    assert not has_room(queue)


def test_tokens_count_only_while_they_wait() -> None:
    queue = admission(1, 100, max_waiting_tokens=10)
    assert is_taken(queue, "runs", tokens=500)
    assert is_taken(queue, "waits", tokens=7)
    assert not is_taken(queue, "large", tokens=4)
    assert is_taken(queue, "small", tokens=3)
    assert not has_room(queue), "by tokens alone, before a prompt is read"
    queue.leave("runs")
    assert is_taken(queue, "large", tokens=7), "what waited first runs now"


def test_the_oldest_run_first_and_nobody_overtakes() -> None:
    queue = admission(2, 100, max_waiting_tokens=10)
    assert is_taken(queue, "runs")
    assert is_taken(queue, "wide", choices=2, tokens=6)
    assert is_taken(queue, "narrow", tokens=4)
    assert not is_taken(queue, "another", tokens=1)
    queue.leave("runs")
    assert is_taken(queue, "another", tokens=6), "the wide one runs, the narrow one waits on"
    assert not is_taken(queue, "last", tokens=1)


def test_books_are_even_after_any_order_of_ends() -> None:
    rng, queue = random.Random(3), admission(5, 20, max_waiting_tokens=200)
    there: list[str] = []
    for number in range(3000):
        if there and rng.random() < 0.5:
            queue.leave(there.pop(rng.randrange(len(there))))
        elif is_taken(queue, name := str(number), choices=rng.randint(1, 5), tokens=rng.randint(0, 40)):
            there.append(name)
    for name in there:
        queue.leave(name)
    assert [is_taken(queue, name, tokens=10) for name in "abcde"] == [True] * 5
    assert [is_taken(queue, name, tokens=10) for name in "fghijklmnopqrstuvwxyz"] == [True] * 20 + [False]


def test_a_refusal_says_when_half_of_what_waits_has_begun() -> None:
    clock = Clock()
    queue = admission(2, 20, clock=clock)
    taken(queue, 22)
    for number in range(10):  # one ends each second, and another one comes
        clock.now += 1.0
        queue.leave(str(number))
        assert is_taken(queue, f"then {number}")
    assert retry_after_s(queue) == pytest.approx(10.0, rel=0.15)


def test_the_time_before_the_queue_does_not_count() -> None:
    clock = Clock()
    queue = admission(1, 40, clock=clock)
    for number in range(5):  # a quiet hour
        is_taken(queue, str(number))
        clock.now += 720
        queue.leave(str(number))
    taken(queue, 41)
    for number in range(20):
        clock.now += 0.1
        queue.leave(str(number))
        is_taken(queue, f"then {number}")
    assert retry_after_s(queue) == pytest.approx(2.0, rel=0.15)


@pytest.mark.parametrize(("passed_s", "told_s"), [(0.0, 1.0), (0.5, 5.0), (1000.0, 60.0)])
def test_while_nothing_has_ended_a_refusal_goes_by_the_age_of_the_queue(passed_s: float, told_s: float) -> None:
    clock = Clock()
    queue = admission(1, 20, clock=clock)
    taken(queue, 21)
    clock.now += passed_s
    assert retry_after_s(queue) == told_s


def test_where_nothing_may_wait_a_second_is_told() -> None:
    queue = admission(1, 0)
    assert is_taken(queue, "a")
    assert retry_after_s(queue) == 1.0


def retry_after_s(queue: Admission) -> float | None:
    with pytest.raises(RateLimitError) as refused:
        queue.check_room()
    assert (refused.value.code, refused.value.status) == ("queue_full", 429)
    return refused.value.retry_after_s


def test_share_that_floods_is_told_to_wait_and_a_quiet_one_is_let_in() -> None:
    queue = admission(8, 256, 1 << 20)
    flood = [name for name in map(str, range(1000)) if is_taken(queue, name, share="busy")]
    assert len(flood) == 8 + 192
    with pytest.raises(RateLimitError, match="leave room for others") as refused:
        queue.check_room(share="busy")
    assert refused.value.code == "queue_full"
    queue.check_room(share="quiet")
    assert all(is_taken(queue, f"quiet {number}", share="quiet") for number in range(30))
    assert is_taken(queue, "of nobody in particular")


def test_there_is_room_beside_several_that_flood() -> None:
    queue = admission(1, 256, 1 << 20)
    for share in "abc":
        while is_taken(queue, f"{share}{queue._num_waiting}", share=share):
            pass
        assert is_taken(queue, f"quiet beside {share}", share=f"quiet beside {share}")


def test_share_may_have_only_so_many_tokens_waiting() -> None:
    queue = admission(1, 100, 1000)
    sent = [is_taken(queue, str(number), tokens=100, share="busy") for number in range(10)]
    assert sent == [True] * 9 + [False]  # one runs, and eight wait
    assert not is_taken(queue, "small", tokens=10, share="busy")
    assert is_taken(queue, "quiet", tokens=150, share="quiet")


def test_whoever_could_run_at_once_does_however_little_may_wait() -> None:
    queue = admission(4, 0)
    assert [is_taken(queue, str(number), share="key") for number in range(5)] == [True] * 4 + [False]
    one = admission(1, 1)
    assert [is_taken(one, str(number), share="key") for number in range(3)] == [True, True, False]


@pytest.mark.parametrize("seed", range(5))
def test_counts_of_shares_are_those_of_what_waits(seed: int) -> None:
    rng = random.Random(seed)
    queue, names = admission(3, 20, 300), list[str]()
    for number in range(2000):
        name = str(number)
        if rng.random() < 0.6:
            if is_taken(queue, name, rng.randrange(1, 4), rng.randrange(0, 60), rng.choice(["", "a", "b"])):
                names.append(name)
        elif names:
            queue.leave(names.pop(rng.randrange(len(names))))
    assert names
    for name in names:
        queue.leave(name)
    assert not queue._choices_of
    assert not queue._tokens_of
    assert (queue._num_waiting, queue._waiting_tokens) == (0, 0)
