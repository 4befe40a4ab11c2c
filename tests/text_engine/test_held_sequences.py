"""Beams in the scheduler: held until the others of their search are as far, then resumed, split or dropped."""

from __future__ import annotations

import random

import pytest

from tests.text_engine.test_scheduler import FakeModel, live, make_scheduler, make_sequence
from vfastml.text_engine.scheduler import Scheduler
from vfastml.text_engine.sequence import Sequence

WIDTH = 3


class Search:
    """A beam search whose choices are drawn by lot."""

    def __init__(self, prompt: Sequence) -> None:
        self.rows = [prompt]
        prompt.num_seats = WIDTH

    def is_ready(self, scheduler: Scheduler) -> bool:
        return all(row in scheduler.held for row in self.rows)

    def advance(self, scheduler: Scheduler, rng: random.Random) -> None:
        parents = [rng.choice(self.rows) for _ in range(rng.randrange(1, WIDTH + 1))]
        for row in self.rows:
            if row not in parents:
                scheduler.remove(row)
        free = sorted(set(range(WIDTH)) - {parent.index for parent in parents})
        self.rows = []
        for parent in parents:
            self.rows.append(parent if parent not in self.rows else scheduler.branch(parent, free.pop()))
        for row in self.rows:
            row.num_seats = 1
        self.rows[0].num_seats = WIDTH + 1 - len(self.rows)
        for row in self.rows:
            row.tokens.append(rng.randrange(7))
            scheduler.resume(row)

    def drop(self, scheduler: Scheduler) -> None:
        for row in self.rows:
            scheduler.remove(row)


def make_beam(tokens: list[int], arrival: int, **fields: object) -> Sequence:
    return make_sequence(tokens, arrival, num_candidates=2 * WIDTH, **fields)


@pytest.mark.parametrize("failures", [0.0, 0.2])
@pytest.mark.parametrize("seed", range(30))
def test_random_searches_beside_others_keep_every_count_and_get_on(seed: int, failures: float) -> None:
    rng = random.Random(seed)
    scheduler = make_scheduler(num_blocks=13, max_num_seqs=6, budget=rng.choice([2, 16]))
    model, searches, ended = FakeModel(), list[Search](), 0
    for arrival in range(300):
        if rng.random() < 0.2 and len(searches) < 4:
            prompt = make_beam([rng.randrange(7) for _ in range(rng.randrange(1, 20))], 2 * arrival)
            searches.append(Search(prompt))
            scheduler.add(prompt)
        if rng.random() < 0.1 and len(live(scheduler)) < 16:
            tokens = [rng.randrange(7)] * rng.randrange(1, 9)
            scheduler.add(make_sequence(tokens, 2 * arrival + 1, priority=rng.choice([0, 1])))
        ran = model.run_after_a_failure(scheduler) if rng.random() < failures else model.run(scheduler)
        assert ran or failures or not live(scheduler)
        assert sum(sequence.num_seats for sequence in scheduler.running) <= 6
        scheduler.blocks.check_integrity(live(scheduler))
        for search in [search for search in searches if search.is_ready(scheduler)]:
            search.advance(scheduler, rng)
            if search.rows[0].num_generated >= 25 or rng.random() < 0.01:
                search.drop(scheduler)
                searches.remove(search)
                ended += 1
        for sequence in [s for s in scheduler.running if s.num_generated >= 30 and not s.num_candidates]:
            scheduler.remove(sequence)
        scheduler.blocks.check_integrity(live(scheduler))
    assert ended > 0
    for sequence in live(scheduler):
        scheduler.remove(sequence)
    assert scheduler.blocks.num_free == 13
    assert scheduler.num_preemptions > 0


def two_beams(num_blocks: int) -> tuple[Scheduler, FakeModel, list[Sequence]]:
    """With eight tokens each, of which the first four are shared; both are running."""
    scheduler, model = make_scheduler(num_blocks), FakeModel()
    first = make_beam([1, 2, 3, 4], 0)
    scheduler.add(first)
    model.run(scheduler)
    beams = [first, scheduler.branch(first, 1)]
    for place in range(4):
        for number, beam in enumerate(beams):
            beam.tokens.append(10 * number + place)
            scheduler.resume(beam)
        if place < 3:
            model.run(scheduler)
    return scheduler, model, beams


def test_held_sequence_is_in_no_step() -> None:
    scheduler, model, beams = two_beams(num_blocks=8)
    model.run(scheduler)
    scheduler.add(make_sequence([5], 1))
    assert scheduler.held == beams
    assert [row.sequence.request_id for row in scheduler.schedule().rows] == ["r1"]


def test_held_sequence_gives_up_its_blocks_for_one_before_it_and_is_computed_anew_when_it_is_resumed() -> None:
    scheduler, model, beams = two_beams(num_blocks=4)
    model.run(scheduler)
    urgent = make_sequence([7] * 2, 1, priority=-1)
    scheduler.add(urgent)
    while beams[1].block_table:
        model.run(scheduler)
    assert (urgent in scheduler.running, scheduler.held) == (True, beams)
    scheduler.remove(urgent)
    beams[1].tokens.append(3)
    scheduler.resume(beams[1])
    assert list(scheduler.waiting) == [beams[1]]
    model.run(scheduler)
    assert scheduler.held == beams
    assert beams[1].num_computed == 9


def test_held_sequences_make_way_when_nothing_else_could_run() -> None:
    scheduler, model, beams = two_beams(num_blocks=3)
    waiting = make_sequence([9] * 3, 5)
    model.run(scheduler)
    assert scheduler.held == beams
    scheduler.add(waiting)
    assert [row.sequence for row in scheduler.schedule().rows] == [waiting]
    assert [bool(beam.block_table) for beam in beams] == [True, False]


def test_prompt_is_admitted_when_there_are_seats_for_all_its_beams() -> None:
    scheduler = make_scheduler(max_num_seqs=4)
    plain = [make_sequence([1], arrival) for arrival in range(2)]
    for sequence in plain:
        scheduler.add(sequence)
    beam = make_beam([1, 2], 2)
    beam.num_seats = 3
    scheduler.add(beam)
    assert [row.sequence for row in scheduler.schedule().rows] == plain
    scheduler.remove(plain[0])
    assert beam in [row.sequence for row in scheduler.schedule().rows]


def test_beam_that_was_split_off_without_blocks_waits() -> None:
    scheduler, model, beams = two_beams(num_blocks=8)
    model.run(scheduler)
    scheduler._evict_held()
    child = scheduler.branch(beams[1], 2)
    child.tokens.append(1)
    scheduler.resume(child)
    assert list(scheduler.waiting) == [child]
    scheduler.blocks.check_integrity(live(scheduler))


def test_whole_prompt_is_computed_where_each_of_its_tokens_is_asked_for() -> None:
    scheduler, model = make_scheduler(), FakeModel()
    for arrival in range(2):
        sequence = make_sequence(list(range(10)), arrival)
        sequence.prompt_scores = [None] * 10 if arrival else None
        scheduler.add(sequence)
        model.run(scheduler)
    assert scheduler.num_prefix_hit_tokens == 0
    scheduler.add(make_sequence(list(range(10)), 2))
    model.run(scheduler)
    assert scheduler.num_prefix_hit_tokens == 8


def test_held_sequence_has_a_seat_as_long_as_it_has_blocks() -> None:
    scheduler, model = make_scheduler(max_num_seqs=2), FakeModel()
    first = make_beam([1, 2, 3], 0)
    scheduler.add(first)
    model.run(scheduler)
    scheduler.branch(first, 1)
    running, waiting = make_sequence([4], 1), make_sequence([5], 2)
    scheduler._evict_held()
    for sequence in (running, waiting):
        scheduler.add(sequence)
    assert [row.sequence for row in scheduler.schedule().rows] == [running]
    scheduler._evict_held()
    assert waiting in [row.sequence for row in scheduler.schedule().rows]
