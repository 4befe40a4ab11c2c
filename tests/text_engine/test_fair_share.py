"""Shares of a busy engine, by what the scheduler's steps compute for each."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.text_engine.fair_run import FairRun, Lengths, Tenant, equal, mixed
from tests.text_engine.test_scheduler import FakeModel, live, make_scheduler, make_sequence
from vfastml.text_engine.fair_queue import FairQueue
from vfastml.text_engine.scheduler import Scheduler
from vfastml.text_engine.sequence import Sequence

SEEDS = pytest.mark.parametrize("seed", range(1))  # a second or two each; others do as well


def parts(run: FairRun, num_steps: int) -> dict[str, float]:
    """Of each share of all tokens that are served from now on."""
    before = Counter(run.served)
    run.run(num_steps)
    served = run.served - before
    return {share: tokens / served.total() for share, tokens in served.items()}


@SEEDS
@pytest.mark.parametrize(
    ("quiet", "busy"),
    [
        (equal(), equal()),
        (mixed, mixed),
        (equal(20, 200), equal(20, 20)),
        (equal(20, 20), equal(20, 200)),
        (equal(5, 50), equal(700, 10)),  # prompts of several chunks beside short ones
        (equal(700, 10), equal(5, 50)),
    ],
)
def test_one_tenth_of_the_requests_gets_half_of_the_tokens(seed: int, quiet: Lengths, busy: Lengths) -> None:
    run = FairRun([Tenant("busy", 180, busy), Tenant("quiet", 20, quiet)], seed=seed)
    run.run(300)
    assert parts(run, 6000) == pytest.approx({"busy": 0.5, "quiet": 0.5}, rel=0.05)
    assert all(run.num_ended[share] > 20 for share in ("busy", "quiet"))


@SEEDS
def test_moments_without_a_waiting_request_cost_a_share_little(seed: int) -> None:
    run = FairRun([Tenant("busy", 54, mixed), Tenant("quiet", 6, mixed)], seed=seed)
    run.run(300)
    assert parts(run, 8000) == pytest.approx({"busy": 0.5, "quiet": 0.5}, rel=0.03)


@SEEDS
@pytest.mark.parametrize("lengths", [equal(), mixed])
def test_weights_are_parts(seed: int, lengths: Lengths) -> None:
    run = FairRun([Tenant("one", 60, lengths), Tenant("three", 60, lengths, weight=3.0)], seed=seed)
    run.run(300)
    assert parts(run, 6000) == pytest.approx({"one": 0.25, "three": 0.75}, rel=0.05)


@SEEDS
def test_each_token_of_each_choice_counts(seed: int) -> None:
    run = FairRun([Tenant("four", 60, equal(20, 30), forks=3), Tenant("one", 60, equal(20, 30))], seed=seed)
    run.run(300)
    assert parts(run, 6000) == pytest.approx({"four": 0.5, "one": 0.5}, rel=0.05)


@SEEDS
def test_shares_hold_where_blocks_are_short(seed: int) -> None:
    tenants = [Tenant("busy", 90, mixed), Tenant("quiet", 20, mixed)]
    run = FairRun(tenants, seed=seed, num_blocks=90, budget=64)
    run.run(300)
    assert parts(run, 8000) == pytest.approx({"busy": 0.5, "quiet": 0.5}, rel=0.05)
    assert run.scheduler.num_preemptions > 10


@SEEDS
def test_who_asks_for_less_than_its_share_gets_it_and_waits_little(seed: int) -> None:
    run = FairRun([Tenant("busy", 100, mixed), Tenant("modest", 1, equal(20, 40))], seed=seed)
    run.run(6000)
    num_asked = 6000 // 41
    assert run.num_ended["modest"] > 0.5 * num_asked
    waits = sorted(run.waits["modest"])
    others = sorted(run.waits["busy"])
    assert waits[len(waits) // 2] <= 40
    assert waits[-1] < others[len(others) // 2] / 3


@SEEDS
def test_priority_moves_nobody_ahead_of_another_share(seed: int) -> None:
    tenants = [Tenant("pushing", 60, mixed, priority=-100), Tenant("other", 60, mixed)]
    run = FairRun(tenants, seed=seed, num_blocks=90)
    run.run(300)
    assert parts(run, 8000) == pytest.approx({"pushing": 0.5, "other": 0.5}, rel=0.05)


def test_idleness_is_no_credit() -> None:
    run = FairRun([Tenant("busy", 60), Tenant("late", 0)])
    run.run(3000)
    run.tenants["late"].num_open = 60
    run._due += [(run.now, "late")] * 60
    run.run(60)  # until seats have come free
    assert parts(run, 600) == pytest.approx({"busy": 0.5, "late": 0.5}, rel=0.05)


def test_debt_does_not_end_with_the_last_request_of_a_share() -> None:
    scheduler = make_scheduler(max_num_seqs=1)
    others = [make_sequence([1], number, share="other") for number in range(1, 9)]
    greedy = make_sequence([2] * 12, 0, share="greedy")
    for sequence in (greedy, *others):
        scheduler.add(sequence)
    assert [row.sequence for row in scheduler.schedule().rows] == [greedy]
    scheduler.remove(greedy)
    again = make_sequence([2], 10, share="greedy")
    scheduler.add(again)
    for other in others:  # eight tokens, where the greedy one has had twelve
        assert [row.sequence for row in scheduler.schedule().rows] == [other]
        scheduler.remove(other)
    assert [row.sequence for row in scheduler.schedule().rows] == [again]


def test_counters_of_those_that_have_gone_are_forgotten() -> None:
    scheduler = make_scheduler(max_num_seqs=1)
    for number in range(2):
        scheduler.add(make_sequence([1], number, share="stays"))
    scheduler.schedule()
    for number in range(2, 5000):
        sequence = make_sequence([number], number, share=f"share {number}")
        scheduler.add(sequence)
        scheduler.waiting.charge(sequence, number)
        scheduler.remove(sequence)
        assert len(scheduler.waiting._gone) <= 2 * 1024 + 65
    assert max(scheduler.waiting._gone.values()) == 5000
    assert len(scheduler.waiting._shares) == 1


def test_nobody_is_owed_anything_where_nobody_waits() -> None:
    queue = FairQueue()
    rich, poor = make_sequence([1], 0, share="rich"), make_sequence([1], 1, share="poor")
    for sequence in (rich, poor):
        queue.enter(sequence)
        queue.charge(sequence, 1000 - 1000 * sequence.arrival)
    for sequence in (rich, poor):
        queue.remove(sequence)
    next_one = make_sequence([1], 2, share="rich")
    queue.enter(next_one)
    assert queue.counter_of(rich) == queue.counter_of(poor) == 0.0


def order_of_admission(shares: list[str], priorities: list[int]) -> list[int]:
    scheduler = make_scheduler(max_num_seqs=1)
    for number, (share, priority) in enumerate(zip(shares, priorities, strict=True)):
        scheduler.add(make_sequence([number], number, share=share, priority=priority))
    order = []
    while scheduler.waiting:
        [row] = scheduler.schedule().rows
        order.append(row.sequence.arrival)
        scheduler.remove(row.sequence)
    return order


@given(st.lists(st.integers(-3, 3), min_size=1, max_size=20), st.sampled_from(["", "key"]))
def test_one_share_alone_goes_by_priority_and_arrival(priorities: list[int], share: str) -> None:
    expected = sorted(range(len(priorities)), key=lambda number: (priorities[number], number))
    assert order_of_admission([share] * len(priorities), priorities) == expected


def test_shares_take_turns_and_each_goes_by_its_own_priorities() -> None:
    assert order_of_admission(["a", "a", "a", "b", "b"], [2, 1, -9, 5, 0]) == [2, 4, 1, 3, 0]


class Scripted:
    """A scheduler and the sequences that a random script has put into it; every request must end."""

    def __init__(self, budget: int) -> None:
        self.scheduler: Scheduler = make_scheduler(num_blocks=13, max_num_seqs=5, budget=budget)
        self.model = FakeModel()
        self.num_added = 0

    def add(self, share: str, length: int, forks: int, priority: int) -> None:
        tokens = [(self.num_added + place) % 5 for place in range(length)]
        weight = 1.0 + (share == "c")
        self.scheduler.add(
            make_sequence(tokens, self.num_added, share=share, share_weight=weight, forks=forks, priority=priority)
        )
        self.num_added += 1

    def step(self) -> None:
        ran = self.model.run(self.scheduler)
        assert ran or not live(self.scheduler)
        for sequence in [one for one in self.scheduler.running if one.num_generated >= 20]:
            self.scheduler.remove(sequence)
        self.check()

    def cancel(self, number: int) -> None:
        if sequences := live(self.scheduler):
            self.scheduler.remove(sequences[number % len(sequences)])

    def check(self) -> None:
        sequences: list[Sequence] = live(self.scheduler)
        self.scheduler.blocks.check_integrity(sequences)
        assert len(self.scheduler.waiting) == sum(1 for _ in self.scheduler.waiting)
        num_open = {share.name: share.num_open for share in self.scheduler.waiting._shares.values()}
        assert num_open == Counter(sequence.share for sequence in sequences)


OPERATIONS = st.one_of(
    st.tuples(
        st.just("add"), st.sampled_from("abc"), st.integers(1, 20), st.sampled_from([0, 0, 0, 2]), st.integers(-1, 1)
    ),
    st.tuples(st.just("cancel"), st.integers(0, 99)),
    *[st.tuples(st.just("step"))] * 3,
)


@given(st.lists(OPERATIONS, max_size=80), st.sampled_from([2, 16]))
@settings(max_examples=60, deadline=None)
def test_whatever_comes_every_request_of_every_share_ends(operations: list[tuple[object, ...]], budget: int) -> None:
    script = Scripted(budget)
    for name, *arguments in operations:
        getattr(script, str(name))(*arguments)
    num_steps = 0
    while live(script.scheduler):
        script.step()
        num_steps += 1
        assert num_steps < 20_000
    assert script.scheduler.blocks.num_free == 13
