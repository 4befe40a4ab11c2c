"""A scheduler with tenants whose requests keep it busy; no model."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

from vfastml.text_engine.block_manager import BlockManager
from vfastml.text_engine.sampling import Sampling
from vfastml.text_engine.scheduler import Scheduler
from vfastml.text_engine.sequence import Sequence

BLOCK = 16
Lengths = Callable[[random.Random], tuple[int, int]]
"""Draws the tokens of a prompt and those of its answer."""


def equal(prompt: int = 20, answer: int = 40) -> Lengths:
    return lambda rng: (prompt, answer)


def mixed(rng: random.Random) -> tuple[int, int]:
    return rng.choice([3, 20, 200, 700]), rng.choice([1, 10, 40, 300])


@dataclass
class Tenant:
    """Has `num_open` requests open at all times: as soon as one has ended it sends the next, `think` steps later."""

    share: str
    num_open: int
    lengths: Lengths = field(default_factory=equal)
    weight: float = 1.0
    priority: int = 0
    think: int = 0
    forks: int = 0


class FairRun:
    """Counts what each tenant gets by what the steps compute, not by what the scheduler says of it."""

    def __init__(
        self, tenants: list[Tenant], *, seed: int = 0, num_blocks: int = 4096, max_num_seqs: int = 8, budget: int = 128
    ) -> None:
        self.rng = random.Random(seed)
        self.tenants = {tenant.share: tenant for tenant in tenants}
        blocks = BlockManager(num_blocks, BLOCK)
        self.scheduler = Scheduler(blocks, max_num_seqs=max_num_seqs, max_num_batched_tokens=budget)
        self.served: Counter[str] = Counter()
        self.waits: dict[str, list[int]] = {share: [] for share in self.tenants}
        """Steps from a request's arrival to its first step."""
        self.num_ended: Counter[str] = Counter()
        self.now = 0
        self._num_sent = 0
        self._answers: dict[int, int] = {}
        self._num_open: Counter[int] = Counter()
        self._arrived: dict[int, int] = {}
        self._high: dict[int, int] = {}
        """Of each request's prompt, how much has been computed once."""
        self._due = [(0, share) for share, tenant in self.tenants.items() for _ in range(tenant.num_open)]

    def run(self, num_steps: int) -> None:
        for _ in range(num_steps):
            self.step()

    def step(self) -> None:
        self._send()
        batch = self.scheduler.schedule()
        for sequence in batch.admitted:
            if (arrived := self._arrived.pop(sequence.arrival, None)) is not None:
                self.waits[sequence.share].append(self.now - arrived)
                self._high[sequence.arrival] = sequence.num_computed
        for row in batch.rows:
            self._count_prompt(row.sequence, row.num_tokens)
        self.scheduler.commit(batch)
        for sequence in batch.sampling:
            for choice in [sequence, *self.scheduler.fork(sequence, sequence.forks)]:
                self._grow(choice)
        self.now += 1

    def _send(self) -> None:
        due = [share for at, share in self._due if at <= self.now]
        self._due = [(at, share) for at, share in self._due if at > self.now]
        self.rng.shuffle(due)
        for share in due:
            tenant = self.tenants[share]
            prompt, answer = tenant.lengths(self.rng)
            number = self._num_sent
            self._num_sent += 1
            tokens = [self.rng.randrange(1 << 30) for _ in range(prompt)]
            self._answers[number] = answer
            self._num_open[number] = 1 + tenant.forks
            self._arrived[number] = self.now
            self.scheduler.add(
                Sequence(
                    f"r{number}",
                    tokens,
                    Sampling(max_tokens=answer),
                    arrival=number,
                    share=share,
                    share_weight=tenant.weight,
                    priority=tenant.priority,
                    forks=tenant.forks,
                )
            )

    def _count_prompt(self, sequence: Sequence, num_tokens: int) -> None:
        end = min(sequence.num_prompt_tokens, sequence.num_computed + num_tokens)
        self.served[sequence.share] += max(0, end - self._high[sequence.arrival])
        self._high[sequence.arrival] = max(end, self._high[sequence.arrival])

    def _grow(self, choice: Sequence) -> None:
        choice.tokens.append(self.rng.randrange(1 << 30))
        self.served[choice.share] += 1
        if choice.num_generated < self._answers[choice.arrival]:
            return
        self.scheduler.remove(choice)
        self._num_open[choice.arrival] -= 1
        if self._num_open[choice.arrival] == 0:
            self.num_ended[choice.share] += 1
            self._due.append((self.now + 1 + self.tenants[choice.share].think, choice.share))
