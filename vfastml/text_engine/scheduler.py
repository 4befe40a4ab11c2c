"""Who computes how many tokens in the next step. Plain bookkeeping, no torch, no clock."""

from __future__ import annotations

from bisect import bisect_left, insort
from dataclasses import dataclass
from operator import attrgetter

import msgspec

from vfastml.text_engine.block_manager import BlockManager
from vfastml.text_engine.fair_queue import FairQueue
from vfastml.text_engine.sequence import Sequence

_ORDER = attrgetter("order")

_GROWS_AFTER = 32
"""Steps that have fitted into memory, before larger ones are tried again."""

_MOST_RATED = 256
"""Tokens of a prompt in a step that all need their logits: 50 MB, with a vocabulary of 49,152."""


class ScheduledRow(msgspec.Struct, frozen=True, gc=False):
    """Compute `tokens[num_computed : num_computed + num_tokens]` of `sequence`. (One for each row of each step: a
    struct is made in a third of the time that a dataclass takes.)"""

    sequence: Sequence
    num_tokens: int
    samples: bool
    """The row ends at the last known token: its logits give the next one (for each fork too)."""


@dataclass(frozen=True, slots=True)
class ScheduledBatch:
    """One step's work. `copies` (from block, to block) come first."""

    rows: tuple[ScheduledRow, ...]
    copies: tuple[tuple[int, int], ...]
    admitted: tuple[Sequence, ...] = ()
    """Those of the rows that waited until now, for the first time or again."""
    preempted: tuple[Sequence, ...] = ()
    """Those that have lost their blocks since the step before. Some of them may have ended."""

    @property
    def sampling(self) -> list[Sequence]:
        """Of the rows that sample, in order."""
        return [row.sequence for row in self.rows if row.samples]


class Scheduler:
    """Running sequences first, in order, then waiting ones, until the step's token budget is used up. Out of blocks,
    the sequence that is last in order gives up its blocks and waits again: the first one always gets on.

    The order is that of priority and arrival. Where there are several shares it is so within each of them, and the
    share that has had the least goes first: see FairQueue.

    A beam whose candidates are known is held: it has nothing to compute until the others of its search are as far, and
    no step looks at it. It may have to give up its blocks like any other, and is then computed anew when it is resumed.
    """

    def __init__(self, blocks: BlockManager, *, max_num_seqs: int, max_num_batched_tokens: int) -> None:
        self.blocks = blocks
        self.running: list[Sequence] = []
        self.held: list[Sequence] = []
        self.waiting = FairQueue()
        self.num_preemptions = 0
        self.num_chunked_prefills = 0
        self.num_prefix_hit_tokens = 0
        self.num_prefix_query_tokens = 0
        self.num_prompt_tokens = 0
        """Computed ones; again after a preemption."""
        self._preempted: list[Sequence] = []
        """Since the last step was scheduled."""
        self._max_num_seqs = max_num_seqs
        self._max_num_batched_tokens = max_num_batched_tokens
        self._budget = max_num_batched_tokens
        """Tokens of the next step."""
        self._steps_until_growth = _GROWS_AFTER

    def add(self, sequence: Sequence) -> None:
        """Queues a new sequence."""
        self.waiting.enter(sequence)

    def fork(self, parent: Sequence, num_forks: int) -> list[Sequence]:
        """Splits further choices off a running sequence; they run at once, on the same blocks."""
        children = [parent.fork(parent.index + number) for number in range(1, num_forks + 1)]
        for child in children:
            self.blocks.fork(parent, child)
            self.waiting.enter_beside(child)
            insort(self.running, child, key=_ORDER)
        parent.forks = 0
        parent.num_seats = 1
        return children

    def hold(self, sequence: Sequence) -> None:
        """All tokens of this running sequence are computed, and which one is next will be known later."""
        _take_out(self.running, sequence)
        insort(self.held, sequence, key=_ORDER)

    def resume(self, sequence: Sequence) -> None:
        """A held sequence has got its next token: it goes on as it did before, or waits if it has lost its blocks."""
        _take_out(self.held, sequence)
        if sequence.block_table:
            insort(self.running, sequence, key=_ORDER)
        else:
            self.waiting.add(sequence)

    def branch(self, held: Sequence, index: int) -> Sequence:
        """Splits another sequence off a held one, on the same blocks if it has any. It is held too."""
        child = held.fork(index)
        self.blocks.fork(held, child)
        self.waiting.enter_beside(child)
        insort(self.held, child, key=_ORDER)
        return child

    def remove(self, sequence: Sequence) -> None:
        """Finished or cancelled: its blocks are free when this returns. A step that is on its way may still write into
        them; whatever is launched later comes after it."""
        self._take_off(sequence)
        self.waiting.leave(sequence)
        sequence.has_left = True

    def _take_off(self, sequence: Sequence) -> None:
        if not (_take_out(self.running, sequence) or _take_out(self.held, sequence)):
            self.waiting.remove(sequence)
        self.blocks.release(sequence)

    def schedule(self) -> ScheduledBatch:
        """The next step's rows; the blocks for their KV are already theirs. Empty only if nothing runs or waits,
        but for sequences that end with the token that is on its way."""
        rows: list[ScheduledRow] = []
        copies: list[tuple[int, int]] = []
        preemptions_before = self.num_preemptions
        budget = self._schedule_running(rows, copies)
        num_old = len(rows)
        if self.waiting and self.num_preemptions == preemptions_before:
            self._schedule_waiting(rows, copies, budget)
        while not rows and self.waiting and self._evict_held():  # held ones had the blocks or the seats
            self._schedule_waiting(rows, copies, budget)
        self.num_chunked_prefills += sum(not row.samples for row in rows)
        preempted, self._preempted = tuple(self._preempted), []
        return ScheduledBatch(tuple(rows), tuple(copies), tuple(row.sequence for row in rows[num_old:]), preempted)

    def commit(self, batch: ScheduledBatch) -> None:
        """The step has run or been launched: what it computes counts."""
        commit = self.blocks.commit
        if self.waiting.is_shared:
            self._charge(batch)
        for row in batch.rows:
            sequence = row.sequence
            num_left = sequence.num_prompt_tokens - sequence.num_computed
            if num_left > 0:
                self.num_prompt_tokens += min(num_left, row.num_tokens)
            commit(sequence, row.num_tokens)
        if self._budget < self._max_num_batched_tokens:
            self._grow()

    def _charge(self, batch: ScheduledBatch) -> None:
        """Every token of every choice and beam counts, but none a second time because of a preemption."""
        for sequence in batch.sampling:
            self.waiting.charge(sequence, 1 + sequence.forks)

    def put_back(self, batch: ScheduledBatch) -> list[ScheduledRow]:
        """The step has not run to its end: returns the rows that can be computed again as they are. A sequence whose
        last block was to be copied is not among them: nobody knows what is in it now, so the sequence begins anew. Nor
        is one that has ended since the step was scheduled."""
        targets = {target for _, target in batch.copies}
        rows = []
        for row in batch.rows:
            if row.sequence.has_left:
                continue
            if targets.isdisjoint(row.sequence.block_table):
                rows.append(row)
            else:
                self._take_off(row.sequence)
                self._wait_again(row.sequence)
        return rows

    def shrink(self, num_tokens: int) -> int:
        """A step of so many tokens did not fit into memory: the next ones have at most half of that, which is returned.
        Every so many steps they may be twice as large again."""
        self._budget = max(1, min(self._budget, num_tokens // 2))
        self._steps_until_growth = _GROWS_AFTER
        return self._budget

    def _grow(self) -> None:
        self._steps_until_growth -= 1
        if self._steps_until_growth == 0:
            self._budget = min(2 * self._budget, self._max_num_batched_tokens)
            self._steps_until_growth = _GROWS_AFTER

    def _schedule_running(self, rows: list[ScheduledRow], copies: list[tuple[int, int]]) -> int:
        budget = self._budget
        order = self._in_order()
        for sequence in order:  # `_make_room` may cut its end off
            if budget == 0:
                break
            if sequence.num_pending and sequence.ends_for_sure:  # asked of each in every step
                continue
            row = _row(sequence, budget)
            if sequence.num_computed + row.num_tokens > sequence.num_writable:
                if not self._make_room(row, order):
                    break  # it was the last in order and had to give up its own blocks
                copies += self.blocks.extend(sequence, row.num_tokens)
            budget -= row.num_tokens
            rows.append(row)
        return budget

    def _schedule_waiting(self, rows: list[ScheduledRow], copies: list[tuple[int, int]], budget: int) -> None:
        # Whose last token is on its way is in no step any more: its seat is free, its blocks are not yet.
        seats = self._max_num_seqs - sum(one.num_seats for one in self.running if not one.ends_for_sure)
        seats -= sum(sequence.num_seats for sequence in self.held if sequence.block_table)
        # Blocks that sequences in mid-prefill were admitted for but do not hold yet are not free for others.
        owed = sum(self.blocks.num_owed(sequence) for sequence in self.running) if seats > 0 else 0
        line = self.waiting.line_up((*self.running, *self.held))
        while self.waiting and budget > 0:
            sequence = line.first
            seats -= sequence.num_seats
            if seats < 0 or not self.blocks.admit(sequence, spare=owed):
                return
            self.waiting.remove(sequence)
            insort(self.running, sequence, key=_ORDER)
            if sequence.num_cached_tokens is None:  # coming back from preemption is no hit of a new prompt
                sequence.num_cached_tokens = sequence.num_computed
                self.num_prefix_hit_tokens += sequence.num_computed
                self.num_prefix_query_tokens += sequence.num_prompt_tokens * self.blocks.looks_up(sequence)
                self.waiting.charge(sequence, sequence.num_prompt_tokens - sequence.num_computed)
            line.went(sequence)
            row = _row(sequence, budget)
            copies += self.blocks.extend(sequence, row.num_tokens)
            budget -= row.num_tokens
            rows.append(row)
            owed += self.blocks.num_owed(sequence)

    def _in_order(self) -> list[Sequence]:
        """Those that run: the list itself where there is but one share."""
        if not self.waiting.is_shared:
            return self.running
        return sorted(self.running, key=self.waiting.counter_of)

    def _make_room(self, row: ScheduledRow, order: list[Sequence]) -> bool:
        while not self.blocks.can_extend(row.sequence, row.num_tokens):
            if self._evict_held(behind=order[-1]):
                continue
            victim = order.pop()
            if order is not self.running:
                _take_out(self.running, victim)
            self.blocks.release(victim)
            self._wait_again(victim)
            if victim is row.sequence:
                return False
        return True

    def _evict_held(self, *, behind: Sequence | None = None) -> bool:
        """Takes the blocks of the last held sequence that has any; only of one that comes after `behind`."""
        victim = max((sequence for sequence in self.held if sequence.block_table), key=self._place, default=None)
        if victim is None or (behind is not None and self._place(victim) < self._place(behind)):
            return False
        self.blocks.release(victim)
        self._note_preempted(victim)
        return True

    def _place(self, sequence: Sequence) -> tuple[float, tuple[int, int, int]]:
        """In the order of all."""
        return self.waiting.counter_of(sequence), sequence.order

    def _wait_again(self, victim: Sequence) -> None:
        self.waiting.add(victim)
        self._note_preempted(victim)

    def _note_preempted(self, victim: Sequence) -> None:
        self.num_preemptions += 1
        self._preempted.append(victim)


def _take_out(ordered: list[Sequence], sequence: Sequence) -> bool:
    """Whether it was there."""
    position = bisect_left(ordered, sequence.order, key=_ORDER)
    if position < len(ordered) and ordered[position] is sequence:
        del ordered[position]
        return True
    return False


def _row(sequence: Sequence, budget: int) -> ScheduledRow:
    """As many of its tokens as the budget allows."""
    num_uncomputed = len(sequence.tokens) + sequence.num_pending - sequence.num_computed  # for each row of each step
    if num_uncomputed > _MOST_RATED and sequence.prompt_scores is not None:
        budget = min(budget, _MOST_RATED)
    return ScheduledRow(sequence, min(num_uncomputed, budget), num_uncomputed <= budget)
