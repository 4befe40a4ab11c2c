"""The search itself: which texts go on, which have ended, and when no better one is to be expected."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from heapq import nlargest
from typing import NamedTuple

from vfastml.engine.dispatch_requests import BeamSearch
from vfastml.text_engine.beams.hypothesis_tree import HypothesisTree, Node
from vfastml.text_engine.choice import Ending
from vfastml.text_engine.sampling import SampledToken
from vfastml.text_engine.sequence import Sequence

Candidates = Mapping[Sequence, list[SampledToken]]
"""For each beam's sequence its most probable next tokens."""
EndingOf = Callable[[Sequence, int], Ending | None]
"""How a sequence ends if that token comes next; None if it goes on."""


@dataclass(slots=True)
class Beam:
    """A text that goes on. `score` is the sum of its tokens' log probabilities."""

    sequence: Sequence
    """Which computes it; between `advance` and the next step that of the text without the newest token."""
    node: Node
    score: float


@dataclass(frozen=True, slots=True)
class Hypothesis:
    """A text that has ended. `score` is divided by the power of its length."""

    node: Node
    score: float
    ending: Ending


class _Candidate(NamedTuple):
    beam: Beam
    sampled: SampledToken
    score: float


class BeamGroup:
    """Beams that compete with each other, by the rules of transformers' `generate`: of the best candidates the first
    `width` that have ended are noted, and the first `width` that have not go on."""

    def __init__(self, search: BeamSearch, num_ends: int, max_tokens: int, tree: HypothesisTree) -> None:
        self.width = search.width // search.groups
        self.num_kept = max(2, 1 + num_ends) * self.width
        """Candidates that are looked at: enough to go on with, even if each beam's best tokens are all the end tokens,
        of which there are `num_ends`."""
        self._search = search
        self._max_tokens = max_tokens
        self._tree = tree
        self._num_generated = 0
        self.beams: list[Beam] = []
        """The best first; none are left when the search has ended."""
        self.finished: list[Hypothesis] = []
        """The best first, at most `width`."""

    def begin(self, sequence: Sequence) -> None:
        """One beam: the prompt."""
        self._tree.root.num_holders += 1
        self.beams = [Beam(sequence, self._tree.root, 0.0)]

    def advance(self, candidates: Candidates, taken: Mapping[int, int], ending_of: EndingOf) -> None:
        """Chooses each beam's next token. `taken` says how many beams of other groups have chosen a token already."""
        self._num_generated += 1
        old = self.beams
        survivors: list[_Candidate] = []
        for rank, candidate in enumerate(self._best(candidates, taken)):
            if rank >= self.width and len(survivors) == self.width:
                break
            ending = ending_of(candidate.beam.sequence, candidate.sampled.token)
            if ending is None:
                survivors.append(candidate)
            elif rank < self.width:
                self._finish(candidate, ending)
        self._keep_best_finished()
        if self._is_decided(survivors):
            survivors = []
        self.beams = [self._go_on(candidate) for candidate in survivors]
        for beam in old:
            self._tree.release(beam.node)

    def _best(self, candidates: Candidates, taken: Mapping[int, int]) -> list[_Candidate]:
        """In order. What a constraint forbids is infinitely improbable, and no candidate."""
        penalty = self._search.diversity_penalty
        found = [
            _Candidate(beam, sampled, beam.score + sampled.beam_score - penalty * taken.get(sampled.token, 0))
            for beam in self.beams
            for sampled in candidates[beam.sequence]
            if math.isfinite(sampled.beam_score)
        ]
        return nlargest(self.num_kept, found, key=lambda candidate: candidate.score)

    def _finish(self, candidate: _Candidate, ending: Ending) -> None:
        node = self._tree.extend(candidate.beam.node, candidate.sampled)
        score = candidate.score / float(self._num_generated) ** self._search.length_penalty
        self.finished.append(Hypothesis(node, score, ending))

    def _keep_best_finished(self) -> None:
        self.finished.sort(key=lambda hypothesis: -hypothesis.score)
        for hypothesis in self.finished[self.width :]:
            self._tree.release(hypothesis.node)
        del self.finished[self.width :]

    def _is_decided(self, survivors: list[_Candidate]) -> bool:
        if not survivors:
            return True
        if len(self.finished) < self.width:
            return False
        if self._search.early_stopping is True:
            return True
        penalty = self._search.length_penalty
        hopes_for_length = self._search.early_stopping == "never" and penalty > 0
        length = float(self._max_tokens if hopes_for_length else self._num_generated)
        hope: float = survivors[0].score / length**penalty
        return hope <= self.finished[-1].score

    def _go_on(self, candidate: _Candidate) -> Beam:
        node = self._tree.extend(candidate.beam.node, candidate.sampled)
        return Beam(candidate.beam.sequence, node, candidate.score)
