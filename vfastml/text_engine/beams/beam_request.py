"""A request that is answered by beam search, inside the engine."""

from __future__ import annotations

from collections import Counter
from functools import partial

from vfastml.engine.dispatch_replies import Delta, Finished, Usage
from vfastml.engine.dispatch_requests import BeamSearch
from vfastml.text_engine.beams.beam_answers import BeamAnswers
from vfastml.text_engine.beams.beam_endings import BeamEndings
from vfastml.text_engine.beams.beam_group import Beam, BeamGroup, Hypothesis
from vfastml.text_engine.beams.hypothesis_tree import HypothesisTree
from vfastml.text_engine.detokenizer import Vocabulary
from vfastml.text_engine.encoded_request import EncodedRequest
from vfastml.text_engine.request_history import RequestHistory
from vfastml.text_engine.sampling import SampledToken
from vfastml.text_engine.scheduler import Scheduler
from vfastml.text_engine.sequence import Sequence


class BeamRequest:
    """From `add` to its terminal reply, as OpenRequest is for a request that samples. Its beams are sequences like any
    other, each a row of the steps it is in; they go on together when all of them have candidates for the next place."""

    def __init__(
        self,
        encoded: EncodedRequest,
        search: BeamSearch,
        vocabulary: Vocabulary,
        prompt: Sequence,
        end_token_ids: frozenset[int],
    ) -> None:
        """`prompt` is not yet in the scheduler."""
        sampling = prompt.sampling
        ends = frozenset(sampling.stop_token_ids)
        if not sampling.ignore_eos:
            ends |= end_token_ids
        self._encoded = encoded
        self._prompt = prompt
        self._max_time = sampling.max_time
        self._tree = HypothesisTree()
        self._groups = [BeamGroup(search, len(ends), sampling.max_tokens, self._tree) for _ in range(search.groups)]
        self._endings = BeamEndings(encoded, ends, vocabulary)
        self._answers = BeamAnswers(encoded, prompt, vocabulary, end_token_ids)
        self._rows = [prompt]
        self._candidates: dict[Sequence, list[SampledToken]] = {}
        self.history = RequestHistory(encoded)
        for group in self._groups:
            group.begin(prompt)
        # A token may fall behind as many others as earlier groups can have chosen.
        num_penalised = search.width - self._groups[0].width if search.diversity_penalty else 0
        prompt.num_candidates = self._groups[0].num_kept + num_penalised
        prompt.takes_argmax = prompt.is_plain = False
        self._reserve_seats()

    @property
    def open_sequences(self) -> list[Sequence]:
        """The beams that go on."""
        return list(self._rows)

    @property
    def has_ended(self) -> bool:
        """All choices have been given out."""
        return not self._rows

    def take(self, row: Sequence, candidates: list[SampledToken], scheduler: Scheduler) -> list[Delta]:
        """A beam's candidates, the best first. Returns what is to be sent now: nothing until all beams have theirs."""
        if not self.history.has_token:
            self.history.note_first_token(row)
        scheduler.hold(row)
        self._candidates[row] = candidates
        if len(self._candidates) < len(self._rows):
            return []
        self._choose()
        self._candidates.clear()
        self._move_rows(scheduler)
        if self.has_ended:
            return self._answers.end(self._tree, self._best())
        return self._answers.go_on(self._tree.advance_root())

    def finished(self) -> Finished:
        """The terminal reply of a request that has ended. Its usage counts the tokens of the answered texts, not those
        that other beams have tried."""
        usage = Usage(
            prompt_tokens=self._prompt.num_prompt_tokens,
            completion_tokens=self._answers.num_generated,
            cached_tokens=self._prompt.num_cached_tokens or 0,
            reasoning_tokens=self._answers.num_reasoning_tokens,
        )
        return self.history.finished(self._prompt, usage)

    def _choose(self) -> None:
        """Each beam's next token, group by group."""
        taken: Counter[int] = Counter()
        ending_of = partial(self._endings.of, out_of_time=self.history.is_out_of_time(self._max_time))
        for group in self._groups:
            if group.beams:
                group.advance(self._candidates, taken, ending_of)
                taken.update(beam.node.sampled.token for beam in group.beams if beam.node.sampled is not None)

    def _move_rows(self, scheduler: Scheduler) -> None:
        """Of the beams that have chosen the same sequence, the first continues it, and the others split off. Whatever
        raises, `_rows` are those that the scheduler knows."""
        followers: dict[Sequence, list[Beam]] = {}
        for group in self._groups:
            for beam in group.beams:
                followers.setdefault(beam.sequence, []).append(beam)
        for row in [row for row in self._rows if row not in followers]:
            self._rows.remove(row)
            scheduler.remove(row)
            if followers:  # at the end of a search all go
                self.history.mark("dropped", row, row.num_generated)
        free = iter(sorted(set(range(self._width)) - {row.index for row in self._rows}))
        for row, (_, *others) in followers.items():
            for beam in others:
                beam.sequence = scheduler.branch(row, next(free))
                self._rows.append(beam.sequence)
                self.history.mark("forked", beam.sequence, row.num_generated)
        self._reserve_seats()
        for beams in followers.values():
            for beam in beams:
                _append(beam)
                scheduler.resume(beam.sequence)

    @property
    def _width(self) -> int:
        return sum(group.width for group in self._groups)

    def _reserve_seats(self) -> None:
        """The first beam keeps those of beams that are not there now."""
        for row in self._rows:
            row.num_seats = 1
        if self._rows:
            self._rows[0].num_seats += self._width - len(self._rows)

    def _best(self) -> list[Hypothesis]:
        found = [hypothesis for group in self._groups for hypothesis in group.finished]
        if not found:
            raise RuntimeError("no token could follow any of the beams")
        return sorted(found, key=lambda hypothesis: -hypothesis.score)


def _append(beam: Beam) -> None:
    if beam.node.sampled is None:
        return
    beam.sequence.tokens.append(beam.node.sampled.token)
    if beam.sequence.matcher is not None:
        beam.sequence.matcher.accept(beam.node.sampled.token)
