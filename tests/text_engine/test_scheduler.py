"""Scheduler and block manager, driven by random operations and recounted after each."""

from __future__ import annotations

import random

import pytest

from vfastml.text_engine.block_manager import BlockManager
from vfastml.text_engine.sampling import Sampling
from vfastml.text_engine.scheduler import ScheduledBatch, Scheduler
from vfastml.text_engine.sequence import Sequence

BLOCK = 4


def make_scheduler(num_blocks: int = 32, *, max_num_seqs: int = 8, budget: int = 16) -> Scheduler:
    return Scheduler(BlockManager(num_blocks, BLOCK), max_num_seqs=max_num_seqs, max_num_batched_tokens=budget)


def make_sequence(tokens: list[int], arrival: int, **kwargs: object) -> Sequence:
    return Sequence(f"r{arrival}", tokens, Sampling(max_tokens=64), arrival=arrival, **kwargs)  # type: ignore[arg-type]


class FakeModel:
    """A cache of tokens instead of KV: catches every block that is read before it was written, or written by two."""

    def __init__(self) -> None:
        self.cells: dict[tuple[int, int], int] = {}

    def run(self, scheduler: Scheduler) -> int:
        return self._compute(scheduler, scheduler.schedule())

    def run_after_a_failure(self, scheduler: Scheduler) -> int:
        """The first try ends with half of its copies done, and with nothing of use in what it has written."""
        batch = scheduler.schedule()
        for row in batch.rows:
            sequence = row.sequence
            positions = range(sequence.num_computed, sequence.num_computed + row.num_tokens)
            for position in positions:
                self.cells[sequence.block_table[position // BLOCK], position % BLOCK] = -1
        self.cells |= {(target, offset): -1 for _, target in batch.copies[::2] for offset in range(BLOCK)}
        return self._compute(scheduler, ScheduledBatch(tuple(scheduler.put_back(batch)), ()))

    def _compute(self, scheduler: Scheduler, batch: ScheduledBatch) -> int:
        for source, target in batch.copies:
            for offset in range(BLOCK):
                if (source, offset) in self.cells:
                    self.cells[target, offset] = self.cells[source, offset]
        for row in batch.rows:
            sequence = row.sequence
            for position in range(sequence.num_computed, sequence.num_computed + row.num_tokens):
                self.cells[sequence.block_table[position // BLOCK], position % BLOCK] = sequence.tokens[position]
            for position in range(sequence.num_computed + row.num_tokens):
                cell = sequence.block_table[position // BLOCK], position % BLOCK
                assert self.cells[cell] == sequence.tokens[position]
        scheduler.commit(batch)
        for row in batch.rows:
            if row.samples:
                self._sampled(scheduler, row.sequence)
        return sum(row.num_tokens for row in batch.rows)

    def _sampled(self, scheduler: Scheduler, first: Sequence) -> None:
        if first.num_candidates:
            scheduler.hold(first)
            return
        for number, sequence in enumerate([first, *scheduler.fork(first, first.forks)]):
            sequence.tokens.append(hash((sequence.request_id, number, len(sequence.tokens))) % 7)


def live(scheduler: Scheduler) -> list[Sequence]:
    return [*scheduler.running, *scheduler.held, *sorted(scheduler.waiting, key=lambda sequence: sequence.order)]


@pytest.mark.parametrize("failures", [0.0, 0.2])
@pytest.mark.parametrize("seed", range(30))
def test_random_operations_keep_every_count(seed: int, failures: float) -> None:
    rng = random.Random(seed)
    scheduler = make_scheduler(num_blocks=24, max_num_seqs=6, budget=rng.choice([3, 16]))
    model, arrival = FakeModel(), 0
    prefixes = [[rng.randrange(7) for _ in range(20)] for _ in range(3)]
    for _ in range(400):
        choice = rng.random()
        if choice < 0.2 and len(live(scheduler)) < 20:
            tokens = [*rng.choice(prefixes)[: rng.randrange(1, 20)], rng.randrange(7)]
            forks = rng.choice([0, 0, 0, 3])
            scheduler.add(make_sequence(tokens, arrival, forks=forks, priority=rng.choice([0, 0, 1])))
            arrival += 1
        elif choice < 0.25 and live(scheduler):
            scheduler.remove(rng.choice(live(scheduler)))
        elif choice < 1 - failures:
            ran = model.run(scheduler)
            assert ran or not live(scheduler)
        else:
            model.run_after_a_failure(scheduler)
        scheduler.blocks.check_integrity(live(scheduler))
        for sequence in [s for s in scheduler.running if s.num_generated >= 30]:
            scheduler.remove(sequence)
    while live(scheduler):
        scheduler.remove(live(scheduler)[0])
    assert scheduler.blocks.num_free == 24
    scheduler.blocks.check_integrity([])
    assert scheduler.num_preemptions > 0
    assert scheduler.num_prefix_hit_tokens > 0


def test_long_prompt_is_computed_in_chunks_beside_a_decode() -> None:
    scheduler, model = make_scheduler(budget=8), FakeModel()
    scheduler.add(make_sequence([1, 2], 0))
    model.run(scheduler)
    long = make_sequence(list(range(20)), 1)
    scheduler.add(long)
    assert [model.run(scheduler) for _ in range(3)] == [8, 8, 7]
    assert scheduler.num_chunked_prefills == 2
    assert long.num_generated == 1


def test_second_prompt_hits_the_prefix_of_the_first() -> None:
    scheduler, model = make_scheduler(), FakeModel()
    scheduler.add(make_sequence(list(range(10)), 0))
    model.run(scheduler)
    again = make_sequence([*range(8), 99], 1)
    scheduler.add(again)
    model.run(scheduler)
    assert again.num_cached_tokens == 8
    assert list(again.block_table)[:2] == list(scheduler.running[0].block_table)[:2]


def test_last_token_of_a_cached_prompt_is_computed_anew() -> None:
    scheduler, model = make_scheduler(), FakeModel()
    for arrival in range(2):
        scheduler.add(make_sequence(list(range(8)), arrival))
        model.run(scheduler)
    assert scheduler.num_prefix_hit_tokens == 4


@pytest.mark.rule("S11")
@pytest.mark.parametrize("other_salt", [b"b", b""])
def test_no_prefix_is_shared_across_salts(other_salt: bytes) -> None:
    scheduler, model = make_scheduler(), FakeModel()
    scheduler.add(make_sequence(list(range(10)), 0, salt=b"a"))
    model.run(scheduler)
    scheduler.add(make_sequence(list(range(10)), 1, salt=other_salt))
    model.run(scheduler)
    assert scheduler.num_prefix_hit_tokens == 0


@pytest.mark.rule("S11")
def test_equal_hash_with_other_tokens_is_no_hit(monkeypatch: pytest.MonkeyPatch) -> None:
    class OneHash:
        def __init__(self, data: bytes) -> None: ...
        def digest(self) -> bytes:
            return b"same"

    monkeypatch.setattr("vfastml.text_engine.block_manager.hashlib.sha256", OneHash)
    scheduler, model = make_scheduler(), FakeModel()
    scheduler.add(make_sequence([1] * 10, 0))
    model.run(scheduler)
    scheduler.add(make_sequence([2] * 10, 1))
    model.run(scheduler)
    assert scheduler.num_prefix_hit_tokens == 0


def test_forks_share_blocks_and_copy_only_the_partial_one() -> None:
    scheduler, model = make_scheduler(), FakeModel()
    scheduler.add(make_sequence(list(range(6)), 0, forks=2))
    model.run(scheduler)
    tables = [list(sequence.block_table) for sequence in scheduler.running]
    assert tables[0] == tables[1] == tables[2]
    model.run(scheduler)
    tables = [list(sequence.block_table) for sequence in scheduler.running]
    assert len({table[0] for table in tables}) == 1
    assert len({table[1] for table in tables}) == 3


def test_youngest_is_preempted_and_the_oldest_gets_on() -> None:
    scheduler, model = make_scheduler(num_blocks=6), FakeModel()
    old, young = make_sequence([1] * 8, 0), make_sequence([2] * 8, 1)
    scheduler.add(old)
    scheduler.add(young)
    for _ in range(14):
        model.run(scheduler)
    assert scheduler.num_preemptions >= 1
    assert old.num_generated == 14
    assert list(scheduler.waiting) == [young]


def test_smaller_priority_runs_first() -> None:
    scheduler = make_scheduler(max_num_seqs=1)
    scheduler.add(make_sequence([1], 0, priority=5))
    scheduler.add(make_sequence([2], 1, priority=-5))
    assert [row.sequence.request_id for row in scheduler.schedule().rows] == ["r1"]


def test_evicts_the_longest_unused_block_first() -> None:
    scheduler, model = make_scheduler(num_blocks=6), FakeModel()
    for arrival, first in enumerate((10, 20)):
        scheduler.add(make_sequence([first] * 5, arrival))
        model.run(scheduler)
        scheduler.remove(scheduler.running[0])
    scheduler.add(make_sequence([30] * 17, 2))  # five blocks of six: takes the unfindable ones and the oldest prefix
    model.run(scheduler)
    scheduler.remove(live(scheduler)[0])
    scheduler.add(make_sequence([20] * 5, 3))
    model.run(scheduler)
    assert scheduler.num_prefix_hit_tokens == 4


def test_integrity_check_sees_a_wrong_count() -> None:
    scheduler = make_scheduler()
    scheduler.add(make_sequence([1] * 6, 0))
    scheduler.schedule()
    with pytest.raises(AssertionError, match="count"):
        scheduler.blocks.check_integrity([])


def test_integrity_check_sees_a_row_that_would_write_into_a_shared_block() -> None:
    scheduler, model = make_scheduler(), FakeModel()
    scheduler.add(make_sequence([1] * 6, 0, forks=1))
    model.run(scheduler)
    scheduler.blocks.check_integrity(scheduler.running)
    scheduler.running[0].num_writable = 8
    with pytest.raises(AssertionError, match="not for it to write"):
        scheduler.blocks.check_integrity(scheduler.running)


def test_batch_names_those_that_were_admitted() -> None:
    scheduler, model = make_scheduler(num_blocks=6), FakeModel()
    old, young = make_sequence([1] * 8, 0), make_sequence([2] * 8, 1)
    for sequence in (old, young):
        scheduler.add(sequence)
    assert scheduler.schedule().admitted == (old, young)
    assert scheduler.schedule().admitted == ()
    while scheduler.num_preemptions == 0:
        model.run(scheduler)
    scheduler.remove(old)
    assert scheduler.schedule().admitted == (young,)


def test_step_that_did_not_fit_is_followed_by_smaller_ones_and_these_grow_again() -> None:
    scheduler, model = make_scheduler(num_blocks=400, budget=16), FakeModel()
    scheduler.add(make_sequence(list(range(900)), 0))
    assert model.run(scheduler) == 16
    assert scheduler.shrink(16) == 8
    assert model.run(scheduler) == 8
    assert [scheduler.shrink(8), scheduler.shrink(3), scheduler.shrink(16), scheduler.shrink(1)] == [4, 1, 1, 1]
    sizes = [model.run(scheduler) for _ in range(150)]
    assert sizes == sorted(sizes)
    assert sorted(set(sizes)) == [1, 2, 4, 8, 16]


def test_rows_whose_copies_may_be_half_done_begin_anew_and_the_others_stay() -> None:
    scheduler, model = make_scheduler(), FakeModel()
    scheduler.add(make_sequence(list(range(6)), 0, forks=2))
    model.run(scheduler)
    batch = scheduler.schedule()
    assert (len(batch.rows), len(batch.copies)) == (3, 2)
    [kept] = scheduler.put_back(batch)
    assert scheduler.running == [kept.sequence]
    assert len(scheduler.waiting) == 2
    scheduler.blocks.check_integrity(live(scheduler))
