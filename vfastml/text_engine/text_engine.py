"""The engine: add requests, cancel them, step. A step moves each running request on by what the scheduler gives it."""

from __future__ import annotations

import itertools
import logging
from collections.abc import Iterable
from typing import Protocol

from vfastml.engine.dispatch_replies import Delta, Failed, Finished, Limits, Load
from vfastml.engine.request_failure import failure, is_out_of_memory
from vfastml.text_engine.beams.beam_request import BeamRequest
from vfastml.text_engine.block_manager import BlockManager
from vfastml.text_engine.detokenizer import Vocabulary
from vfastml.text_engine.encoded_request import EncodedRequest
from vfastml.text_engine.launched_step import Done, InFlight, Launch, LaunchedStep
from vfastml.text_engine.open_request import OpenRequest
from vfastml.text_engine.retried_step import RetriedStep, attempt, retry_in_halves
from vfastml.text_engine.sampling import SampledToken, Sampling
from vfastml.text_engine.scheduler import ScheduledBatch, ScheduledRow, Scheduler
from vfastml.text_engine.sequence import Sequence

logger = logging.getLogger(__name__)

StepReplies = list[Delta | Finished | Failed]
"""What a step has to say, each request's terminal after its deltas."""

_FAILED = "The request could not be completed."


class Runner(Protocol):
    """What computes a batch (ModelRunner; tests put simpler ones in its place)."""

    def run(self, batch: ScheduledBatch) -> list[list[SampledToken]]:
        """For each row that samples, in order: a token for the sequence and one for each of its forks, or a beam's
        candidates."""

    def parts(self) -> dict[str, tuple[object, str]]:
        """What `run` consists of: by name, the object and its method that does it."""


class TextEngine:
    """Continuous batching. Not thread-safe: one thread calls everything."""

    def __init__(
        self,
        runner: Runner,
        vocabulary: Vocabulary,
        limits: Limits,
        end_token_ids: Iterable[int],
        *,
        enable_prefix_caching: bool = True,
        launch: Launch | None = None,
    ) -> None:
        """With `launch` a step is made ready while the device still computes the one before it, wherever the next step
        does not depend on what is in the tokens of that one; None: each is waited for, with `runner.run`."""
        self._runner = runner
        self._launch = launch
        self._on_its_way: LaunchedStep | None = None
        self._vocabulary = vocabulary
        self._end_token_ids = frozenset(end_token_ids)
        self._blocks = BlockManager(limits.num_blocks, limits.block_size, enable_prefix_caching=enable_prefix_caching)
        self._scheduler = Scheduler(
            self._blocks,
            max_num_seqs=limits.max_num_seqs,
            max_num_batched_tokens=limits.max_num_batched_tokens,
        )
        self._probe_length = min(limits.block_size, limits.max_model_len)
        self._requests: dict[str, OpenRequest | BeamRequest] = {}
        self._arrivals = itertools.count()
        self._num_steps = 0
        self._num_generated = 0
        self._traced: set[str] = set()
        """Requests whose parts of prompts are noted, too."""

    @property
    def has_work(self) -> bool:
        """Whether a step would do anything."""
        return bool(self._requests) or self._on_its_way is not None

    def add(self, encoded: EncodedRequest) -> None:
        """Queues a request, which must fit: prompt and max_tokens within max_model_len, choices or beams within
        max_num_seqs."""
        request = encoded.request
        sequence = Sequence(
            request.request_id,
            list(encoded.prompt_tokens),
            encoded.sampling,
            arrival=next(self._arrivals),
            priority=request.priority,
            salt=f"{request.model_adapter_uri or ''}\0{request.cache_salt}".encode(),
            share=request.share,
            share_weight=request.share_weight,
            forks=0 if request.beams else encoded.num_choices - 1,
            matcher=encoded.matcher,
        )
        self._requests[request.request_id] = self._open(encoded, sequence)
        if request.is_traced:
            self._traced.add(request.request_id)
        self._scheduler.add(sequence)

    def cancel(self, request_id: str) -> bool:
        """Forgets a request and frees its blocks at once. False if it is not open."""
        request = self._requests.pop(request_id, None)
        if request is None:
            return False
        self._traced.discard(request_id)
        for sequence in request.open_sequences:
            self._scheduler.remove(sequence)
        return True

    def step(self, *, recover: bool = True) -> StepReplies:
        """Schedule, run, update. Where the model raises, the requests that make it raise fail and the others go on;
        where memory is short, steps get smaller. Raises only if the model computes nothing any more: then no further
        step makes sense. Without `recover`, raises whatever the model does."""
        if not self.has_work:
            return []
        batch = self._scheduler.schedule()
        self._note_moves(batch)
        launched = self._begin(batch)
        replies = self._end_earlier()
        if not isinstance(launched, Exception):
            return replies + self._end_or_leave(launched)
        if not recover:
            raise launched
        return replies + self._recover(batch, launched)

    def parts(self) -> dict[str, tuple[object, str]]:
        """What `step` consists of, in order: by name, the object and its method that does it."""
        return {"schedule": (self._scheduler, "schedule"), **self._runner.parts(), "update": (self, "_update")}

    def load(self) -> Load:
        """How busy the engine is."""
        scheduler = self._scheduler
        return Load(
            running=len(scheduler.running) + len(scheduler.held),
            waiting=len(scheduler.waiting),
            free_blocks=self._blocks.num_free,
            total_blocks=self._blocks.num_blocks,
            open_requests=len(self._requests),
            preemptions=scheduler.num_preemptions,
            chunked_prefills=scheduler.num_chunked_prefills,
            prefix_hit_tokens=scheduler.num_prefix_hit_tokens,
            steps=self._num_steps,
            prefix_query_tokens=scheduler.num_prefix_query_tokens,
            prompt_tokens=scheduler.num_prompt_tokens,
            generated_tokens=self._num_generated,
        )

    def check_integrity(self) -> None:
        """Recounts all blocks. Raises AssertionError if one is lost or held twice."""
        scheduler = self._scheduler
        self._blocks.check_integrity([*scheduler.running, *scheduler.held, *scheduler.waiting])

    def _open(self, encoded: EncodedRequest, sequence: Sequence) -> OpenRequest | BeamRequest:
        search = encoded.request.beams
        if search is None:
            return OpenRequest(encoded, self._vocabulary, sequence)
        return BeamRequest(encoded, search, self._vocabulary, sequence, self._end_token_ids)

    def _note_moves(self, batch: ScheduledBatch) -> None:
        for sequence in batch.preempted:
            if (request := self._requests.get(sequence.request_id)) is not None:
                request.history.note_preempted(sequence)
        for sequence in batch.admitted:
            self._requests[sequence.request_id].history.note_scheduled(sequence)

    def _begin(self, batch: ScheduledBatch) -> LaunchedStep | Exception:
        if not batch.rows:
            return LaunchedStep(batch, Done([]))
        outcome = attempt(self._launch or self._run, batch)
        if isinstance(outcome, Exception):
            return outcome
        self._commit(batch)
        return LaunchedStep(batch, outcome)

    def _commit(self, batch: ScheduledBatch) -> None:
        """The step is done or on its way, and so are its tokens."""
        if self._traced:
            self._note_prefills(batch)
        self._scheduler.commit(batch)
        for number, sequence in enumerate(batch.sampling):
            sequence.num_pending += 1
            sequence.pending_row = number

    def _note_prefills(self, batch: ScheduledBatch) -> None:
        for row in batch.rows:
            sequence = row.sequence
            is_prefill = row.num_tokens > 1 or sequence.num_computed < sequence.num_prompt_tokens
            if is_prefill and sequence.request_id in self._traced:
                self._requests[sequence.request_id].history.mark("prefilled", sequence, row.num_tokens)

    def _run(self, batch: ScheduledBatch) -> InFlight:
        return Done(self._runner.run(batch))

    def _end_earlier(self) -> StepReplies:
        """Of the step before, if the device was left to compute it."""
        earlier, self._on_its_way = self._on_its_way, None
        return [] if earlier is None else self._update(earlier.batch, earlier.in_flight.result())

    def _end_or_leave(self, launched: LaunchedStep) -> StepReplies:
        if self._launch is not None and launched.is_followed_blindly:
            self._on_its_way = launched
            return []
        return self._update(launched.batch, launched.in_flight.result())

    def _update(self, batch: ScheduledBatch, sampled: list[list[SampledToken]]) -> StepReplies:
        """Gives the tokens of a committed step to their sequences."""
        self._num_steps += bool(batch.rows)
        replies: StepReplies = []
        for sequence, of_choices in zip(batch.sampling, sampled, strict=True):
            sequence.num_pending -= 1
            if sequence.has_left:
                continue  # it has ended with the step before, was cancelled, or another choice of it has just failed
            request = self._requests[sequence.request_id]
            try:
                self._advance(request, sequence, of_choices, replies)
            except Exception as error:
                self.cancel(sequence.request_id)
                replies.append(failure(sequence.request_id, error, _FAILED))
        return replies

    def _recover(self, batch: ScheduledBatch, error: Exception) -> StepReplies:
        """The model has raised. Nothing of the step counts yet, and what is sampled depends on nothing but the tokens:
        so whoever is not at fault gets the same, only later."""
        rows = self._scheduler.put_back(batch)
        num_tokens = sum(row.num_tokens for row in batch.rows)
        if is_out_of_memory(error) and num_tokens > 1:
            fewer = self._scheduler.shrink(num_tokens)
            logger.warning("no memory for a step of %d tokens: the next ones have at most %d", num_tokens, fewer)
            return []
        logger.warning("a step of %d rows raised %s: it is done again in parts", len(batch.rows), type(error).__name__)
        retried = retry_in_halves(self._runner.run, rows)
        computed = ScheduledBatch(tuple(retried.rows), ())
        self._commit(computed)
        replies = self._update(computed, retried.sampled)
        return replies + self._failures(retried)

    def _failures(self, retried: RetriedStep) -> StepReplies:
        broken = {
            row.sequence.request_id: error for row, error in retried.broken if self.cancel(row.sequence.request_id)
        }
        if not (retried.rows or all(map(is_out_of_memory, broken.values())) or self._computes()):
            raise next(iter(broken.values()))
        return [failure(request_id, error, _FAILED) for request_id, error in broken.items()]

    def _computes(self) -> bool:
        """Whether the model still computes a prompt that nobody has sent. The block for it is free: a request has just
        given up its own."""
        probe = Sequence("probe", [1] * self._probe_length, Sampling(max_tokens=1, temperature=0.0), arrival=-1)
        self._blocks.extend(probe, self._probe_length)
        row = ScheduledRow(probe, self._probe_length, samples=True)
        outcome = attempt(self._runner.run, ScheduledBatch((row,), ()))
        self._blocks.release(probe)
        return not isinstance(outcome, Exception)

    def _advance(
        self,
        request: OpenRequest | BeamRequest,
        sequence: Sequence,
        sampled: list[SampledToken],
        replies: StepReplies,
    ) -> None:
        """Gives the sequence, and its forks if this was its last prompt token, one token each; or a beam its
        candidates."""
        if isinstance(request, BeamRequest):
            self._num_generated += 1
            replies += request.take(sequence, sampled, self._scheduler)
            self._close_if_ended(request, sequence.request_id, replies)
        elif sequence.forks:
            forks = self._scheduler.fork(sequence, sequence.forks)
            request.add_choices(forks)
            for choice, one in zip((sequence, *forks), sampled, strict=True):
                self._push(request, choice, one, replies)
        else:
            self._push(request, sequence, sampled[0], replies)

    def _push(self, request: OpenRequest, choice: Sequence, sampled: SampledToken, replies: StepReplies) -> None:
        delta = self._pushed(request, choice, sampled)
        if delta is None:
            return
        if delta.finish_reason is None:
            replies.append(delta)
            return
        replies += request.end(choice, delta)
        self._scheduler.remove(choice)
        self._close_if_ended(request, choice.request_id, replies)

    def _pushed(self, request: OpenRequest, choice: Sequence, sampled: SampledToken) -> Delta | None:
        if choice.sampling.max_tokens == 0:
            return request.end_empty(choice)
        choice.tokens.append(sampled.token)
        self._num_generated += 1
        if choice.matcher is not None and sampled.token not in self._end_token_ids:
            choice.matcher.accept(sampled.token)
        return request.push(choice, sampled, self._end_token_ids)

    def _close_if_ended(self, request: OpenRequest | BeamRequest, request_id: str, replies: StepReplies) -> None:
        if request.has_ended:
            del self._requests[request_id]
            self._traced.discard(request_id)
            replies.append(request.finished())
