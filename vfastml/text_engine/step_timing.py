"""Measures how long steps take, by running made-up ones: a few of each size, the shortest counts."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from vfastml.engine.dispatch_replies import Limits
from vfastml.text_engine.block_manager import BlockManager
from vfastml.text_engine.sampling import Sampling
from vfastml.text_engine.scheduler import ScheduledBatch, ScheduledRow
from vfastml.text_engine.sequence import Sequence
from vfastml.text_engine.step_profile import CONTEXT, StepProfile, StepTime

Run = Callable[[ScheduledBatch], object]
"""Computes a batch, and returns when its tokens are known (ModelRunner.run)."""

_PROMPT = 512
"""Tokens of a prompt; a larger step is measured as several prompts."""
_FIRST_CHUNK = 16
_REPEATS = 4
_ENOUGH_S = 0.25
"""Steps of one size are repeated for so long at most."""
_ENOUGH_ONCE_S = 1.0
"""A step that takes so long is not repeated; the first one of its size may have had memory to allocate."""
_SERIES_S = 3.0
"""No larger step is measured once a series has taken so long."""


@dataclass(frozen=True, slots=True)
class StepBounds:
    """The largest steps to measure."""

    num_seqs: int
    num_tokens: int
    context: int
    """Tokens behind a sequence's next one."""
    prompt: int
    """Tokens of one prompt."""
    longest_prefill_s: float | None
    """No larger prefill is measured once one has taken longer."""

    @classmethod
    def within(cls, limits: Limits, max_tokens: int, longest_prefill_s: float | None) -> StepBounds:
        """As large as the limits, their KV cache included, leave room for."""
        context, prompt = min(CONTEXT, limits.max_model_len - 1), min(_PROMPT, limits.max_model_len)
        seqs_in_cache = limits.num_blocks // -(-(context + 1) // limits.block_size)
        prompts_in_cache = limits.num_blocks // -(-prompt // limits.block_size)
        return cls(
            num_seqs=min(limits.max_num_seqs, seqs_in_cache),
            num_tokens=min(max_tokens, prompts_in_cache * prompt),
            context=context,
            prompt=prompt,
            longest_prefill_s=longest_prefill_s,
        )


def measure_steps(run: Run, bounds: StepBounds, block_size: int, clock: Callable[[], float]) -> StepProfile:
    """Writes over the first blocks of the KV cache, as many as the largest step needs. `clock` gives seconds."""
    timer = _StepTimer(run, clock)
    chunks = _doubling(min(_FIRST_CHUNK, bounds.num_tokens), bounds.num_tokens)
    prefill = timer.series(chunks, lambda number: _prefill(number, bounds, block_size), bounds.longest_prefill_s)
    largest = _decode(bounds.num_seqs, bounds, block_size)
    num_blocks = 1 + max(max(row.sequence.block_table) for row in largest.rows)
    # Pages that were never written to are all the same one: reading them would be too fast.
    run(ScheduledBatch(largest.rows, tuple((0, block) for block in range(1, num_blocks))))
    decode = timer.series(_doubling(1, bounds.num_seqs), lambda number: _decode(number, bounds, block_size), None)
    return StepProfile(decode, prefill)


class _StepTimer:
    def __init__(self, run: Run, clock: Callable[[], float]) -> None:
        self._run = run
        self._clock = clock

    def series(
        self, sizes: Iterable[int], batch_of: Callable[[int], ScheduledBatch], longest_s: float | None
    ) -> tuple[StepTime, ...]:
        """Steps of growing size, until one takes longer than `longest_s` or all of them too long."""
        began = self._clock()
        steps: list[StepTime] = []
        for size in sizes:
            steps.append(StepTime(size, self._seconds(batch_of(size))))
            is_long = longest_s is not None and steps[-1].seconds > longest_s
            if is_long or self._clock() - began > _SERIES_S:
                break
        return tuple(steps)

    def _seconds(self, batch: ScheduledBatch) -> float:
        times = [self._time(batch)]
        while len(times) < _REPEATS and sum(times) < (_ENOUGH_S if len(times) > 1 else _ENOUGH_ONCE_S):
            times.append(self._time(batch))
        return min(times)

    def _time(self, batch: ScheduledBatch) -> float:
        began = self._clock()
        self._run(batch)
        return self._clock() - began


def _doubling(first: int, last: int) -> Iterator[int]:
    """Each twice the one before, and then `last`."""
    size = first
    while size < last:
        yield size
        size *= 2
    yield last


def _decode(num_seqs: int, bounds: StepBounds, block_size: int) -> ScheduledBatch:
    """So many sequences of the same length, each with its last token to compute."""
    return _batch([(bounds.context, 1)] * num_seqs, block_size, num_seqs)


def _prefill(num_tokens: int, bounds: StepBounds, block_size: int) -> ScheduledBatch:
    """Whole prompts, of together so many tokens; no more of them get a token than sequences can run."""
    full, rest = divmod(num_tokens, bounds.prompt)
    return _batch([(0, bounds.prompt)] * full + [(0, rest)] * (rest > 0), block_size, bounds.num_seqs)


def _batch(rows: list[tuple[int, int]], block_size: int, num_sampling: int) -> ScheduledBatch:
    """For each row, the tokens that it has KV of, and those that it computes; the first `num_sampling` are sampled."""
    num_blocks = sum(-(-(computed + new) // block_size) for computed, new in rows)
    blocks = BlockManager(num_blocks, block_size, enable_prefix_caching=False)
    return ScheduledBatch(tuple(_row(blocks, n, *row, samples=n < num_sampling) for n, row in enumerate(rows)), ())


def _row(blocks: BlockManager, number: int, computed: int, new: int, *, samples: bool) -> ScheduledRow:
    sequence = Sequence("measuring", [1] * (computed + new), Sampling(max_tokens=1, temperature=0.0), arrival=number)
    blocks.extend(sequence, computed + new)
    blocks.commit(sequence, computed)
    return ScheduledRow(sequence, new, samples=samples)
