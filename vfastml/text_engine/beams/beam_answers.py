"""The texts that a beam search answers with: what is certain at once, the rest at the end."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from vfastml.engine.dispatch_replies import Delta
from vfastml.engine.merged_deltas import merged_by_choice
from vfastml.text_engine.beams.beam_group import Hypothesis
from vfastml.text_engine.beams.hypothesis_tree import HypothesisTree
from vfastml.text_engine.choice import Choice, Ending
from vfastml.text_engine.detokenizer import Vocabulary
from vfastml.text_engine.encoded_request import EncodedRequest
from vfastml.text_engine.sampling import SampledToken
from vfastml.text_engine.sequence import Sequence


class BeamAnswers:
    """n choices. Each is a sequence that nobody computes: it only holds the text that has become certain."""

    def __init__(
        self,
        encoded: EncodedRequest,
        prompt: Sequence,
        vocabulary: Vocabulary,
        end_token_ids: frozenset[int],
    ) -> None:
        self._sequences = [prompt.fork(index) for index in range(encoded.num_choices)]
        for sequence in self._sequences:
            sequence.matcher = None  # the beams have kept to the constraint
        self._choices = [Choice(sequence, encoded, vocabulary) for sequence in self._sequences]
        self._end_token_ids = end_token_ids

    @property
    def num_reasoning_tokens(self) -> int:
        """Those of them that are thought."""
        return sum(choice.num_reasoning_tokens for choice in self._choices)

    @property
    def num_generated(self) -> int:
        """Tokens of all choices together."""
        return sum(sequence.num_generated for sequence in self._sequences)

    def go_on(self, sampled: Iterable[SampledToken]) -> list[Delta]:
        """Every choice goes on with these tokens, with none of which it ends."""
        return _merged(self._push(index, one) for one in sampled for index in range(len(self._choices)))

    def end(self, tree: HypothesisTree, best: list[Hypothesis]) -> list[Delta]:
        """The choices get the remaining tokens of the best texts, of which there is at least one. Where there are fewer
        than choices, the last one is given again: anything else would not be what was asked for."""
        deltas: list[Delta | None] = []
        for index in range(len(self._choices)):
            hypothesis = best[min(index, len(best) - 1)]
            *before, last = tree.path(hypothesis.node)
            deltas += [self._push(index, sampled) for sampled in before]
            ended = self._push(index, last, must_end=hypothesis.ending)
            deltas.append(None if ended is None else msgspec.structs.replace(ended, score=hypothesis.score))
        return _merged(deltas)

    def _push(self, index: int, sampled: SampledToken, *, must_end: Ending | None = None) -> Delta | None:
        self._sequences[index].tokens.append(sampled.token)
        return self._choices[index].push(sampled, self._end_token_ids, must_end=must_end)


def _merged(deltas: Iterable[Delta | None]) -> list[Delta]:
    return merged_by_choice(delta for delta in deltas if delta is not None)
