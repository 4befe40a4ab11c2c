"""The engine: add requests, cancel them, step. A step moves each running request on by what the scheduler gives it."""

from __future__ import annotations

import itertools
import logging
from collections.abc import Iterable
from typing import Protocol

from vfastml.engine.dispatch_replies import Delta, Failed, Finished, Limits, Load
from vfastml.errors import InternalServerError
from vfastml.text_engine.block_manager import BlockManager
from vfastml.text_engine.detokenizer import Decode
from vfastml.text_engine.sampling import SampledToken
from vfastml.text_engine.scheduler import ScheduledBatch, Scheduler
from vfastml.text_engine.sequence import Sequence
from vfastml.text_engine.text_request import EncodedRequest, OpenRequest

logger = logging.getLogger(__name__)

StepReplies = list[Delta | Finished | Failed]
"""What a step has to say, each request's terminal after its deltas."""


class Runner(Protocol):
    """What computes a batch (ModelRunner; tests put simpler ones in its place)."""

    def run(self, batch: ScheduledBatch) -> list[list[SampledToken]]:
        """For each row that samples, in order: a token for the sequence and one for each of its forks."""


class TextEngine:
    """Continuous batching. Not thread-safe: one thread calls everything."""

    def __init__(
        self,
        runner: Runner,
        decode: Decode,
        limits: Limits,
        end_token_ids: Iterable[int],
        *,
        enable_prefix_caching: bool = True,
    ) -> None:
        self._runner = runner
        self._decode = decode
        self._end_token_ids = frozenset(end_token_ids)
        self._blocks = BlockManager(limits.num_blocks, limits.block_size, enable_prefix_caching=enable_prefix_caching)
        self._scheduler = Scheduler(
            self._blocks,
            max_num_seqs=limits.max_num_seqs,
            max_num_batched_tokens=limits.max_num_batched_tokens,
        )
        self._requests: dict[str, OpenRequest] = {}
        self._arrivals = itertools.count()
        self._num_steps = 0

    @property
    def has_work(self) -> bool:
        """Whether a step would do anything."""
        return bool(self._requests)

    def add(self, encoded: EncodedRequest) -> None:
        """Queues a request, which must fit: prompt and max_tokens within max_model_len, choices within max_num_seqs."""
        request = encoded.request
        sequence = Sequence(
            request.request_id,
            list(encoded.prompt_tokens),
            encoded.sampling,
            arrival=next(self._arrivals),
            priority=request.priority,
            salt=f"{request.model_adapter_uri or ''}\0{request.cache_salt}".encode(),
            forks=encoded.num_choices - 1,
        )
        self._requests[request.request_id] = OpenRequest(encoded, self._decode, sequence)
        self._scheduler.add(sequence)

    def cancel(self, request_id: str) -> bool:
        """Forgets a request and frees its blocks at once. False if it is not open."""
        request = self._requests.pop(request_id, None)
        if request is None:
            return False
        for sequence in request.open_sequences:
            self._scheduler.remove(sequence)
        return True

    def step(self) -> StepReplies:
        """Schedule, run, update. Raises only if the model itself does: then no further step makes sense."""
        if not self.has_work:
            return []
        batch = self._scheduler.schedule()
        for row in batch.rows:
            self._requests[row.sequence.request_id].note_scheduled()
        sampled = self._runner.run(batch)
        return self._update(batch, sampled)

    def load(self) -> Load:
        """How busy the engine is."""
        scheduler = self._scheduler
        return Load(
            running=len(scheduler.running),
            waiting=len(scheduler.waiting),
            free_blocks=self._blocks.num_free,
            total_blocks=self._blocks.num_blocks,
            open_requests=len(self._requests),
            preemptions=scheduler.num_preemptions,
            chunked_prefills=scheduler.num_chunked_prefills,
            prefix_hit_tokens=scheduler.num_prefix_hit_tokens,
            steps=self._num_steps,
        )

    def check_integrity(self) -> None:
        """Recounts all blocks. Raises AssertionError if one is lost or held twice."""
        self._blocks.check_integrity([*self._scheduler.running, *self._scheduler.waiting])

    def _update(self, batch: ScheduledBatch, sampled: list[list[SampledToken]]) -> StepReplies:
        self._num_steps += 1
        self._scheduler.commit(batch)
        replies: StepReplies = []
        sampling_rows = [row for row in batch.rows if row.samples]
        for row, of_choices in zip(sampling_rows, sampled, strict=True):
            if row.sequence.request_id in self._requests:  # else another choice of it has just failed
                replies.extend(self._advance_alone(row.sequence, of_choices))
        return replies

    def _advance_alone(self, sequence: Sequence, sampled: list[SampledToken]) -> StepReplies:
        """`_advance`, whose failure is this request's alone."""
        try:
            return self._advance(sequence, sampled)
        except Exception:
            logger.exception("request %s failed; the others go on", sequence.request_id)
            self.cancel(sequence.request_id)
            return [Failed.of(sequence.request_id, InternalServerError("The request could not be completed."))]

    def _advance(self, sequence: Sequence, sampled: list[SampledToken]) -> StepReplies:
        """Gives the sequence, and its forks if this was its last prompt token, one token each."""
        request = self._requests[sequence.request_id]
        forks = self._scheduler.fork(sequence, len(sampled) - 1)
        request.add_choices(forks)
        replies: StepReplies = []
        for choice, one in zip((sequence, *forks), sampled, strict=True):
            choice.tokens.append(one.token)
            delta = request.push(choice, one, self._end_token_ids)
            if delta is None:
                continue
            replies.append(delta)
            if delta.finish_reason is not None:
                self._scheduler.remove(choice)
        finished = request.finished()
        if finished is not None:
            del self._requests[sequence.request_id]
            replies.append(finished)
        return replies
