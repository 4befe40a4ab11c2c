"""One request inside the engine: its choices, from the first to the last token."""

from __future__ import annotations

from collections.abc import Iterable

from vfastml.engine.dispatch_replies import Delta, Finished, Usage
from vfastml.text_engine.best_of import BestOf
from vfastml.text_engine.choice import Choice, Ending
from vfastml.text_engine.detokenizer import Vocabulary
from vfastml.text_engine.encoded_request import EncodedRequest
from vfastml.text_engine.request_history import RequestHistory
from vfastml.text_engine.sampling import SampledToken
from vfastml.text_engine.sequence import Sequence


class OpenRequest:
    """A request that the engine works on, from `add` to its terminal reply."""

    def __init__(self, encoded: EncodedRequest, vocabulary: Vocabulary, first: Sequence) -> None:
        self._encoded = encoded
        self._vocabulary = vocabulary
        self._choices = {0: Choice(first, encoded, vocabulary)}
        self._open = {0: first}
        num_answers = encoded.num_answers
        self._best_of = None if num_answers is None else BestOf(encoded.num_choices, num_answers)
        self.history = RequestHistory(encoded)

    @property
    def open_sequences(self) -> Iterable[Sequence]:
        """Of the choices that have not ended."""
        return self._open.values()

    def add_choices(self, sequences: list[Sequence]) -> None:
        """The forks of the first. They are open even if one of them cannot become a choice."""
        self._open.update((sequence.index, sequence) for sequence in sequences)
        for sequence in sequences:
            self._choices[sequence.index] = Choice(sequence, self._encoded, self._vocabulary)
            self.history.mark("forked", sequence)

    def push(self, sequence: Sequence, sampled: SampledToken, end_token_ids: frozenset[int]) -> Delta | None:
        """Takes the sequence's newest token. What it returns is to be sent if it has no finish_reason, else `end` says
        what is."""
        if not self.history.has_token:  # asked for each token of each text
            self.history.note_first_token(sequence)
        must_end = None
        if sequence.matcher is not None or sequence.sampling.max_time is not None:
            must_end = self._must_end(sequence)
        return self._choices[sequence.index].push(sampled, end_token_ids, must_end=must_end)

    def end_empty(self, sequence: Sequence) -> Delta:
        """The choice ends with its prompt: no token is asked for."""
        return self._choices[sequence.index].end_empty()

    def end(self, sequence: Sequence, last: Delta) -> list[Delta]:
        """The choice is not open any more. Returns what is to be sent now."""
        del self._open[sequence.index]
        if self._best_of is None:
            return [last]
        return self._best_of.end(last, self._choices[sequence.index].mean_score)

    @property
    def has_ended(self) -> bool:
        """Every choice has."""
        return not self._open

    def finished(self) -> Finished:
        """The terminal reply of a request that has ended."""
        first = self._choices[0].sequence
        usage = Usage(
            prompt_tokens=first.num_prompt_tokens,
            completion_tokens=sum(choice.sequence.num_generated for choice in self._choices.values()),
            cached_tokens=first.num_cached_tokens or 0,
            reasoning_tokens=sum(choice.num_reasoning_tokens for choice in self._choices.values()),
        )
        return self.history.finished(first, usage)

    def _must_end(self, sequence: Sequence) -> Ending | None:
        if sequence.matcher is not None and sequence.matcher.is_over:
            return "stop"
        return "length" if self.history.is_out_of_time(sequence.sampling.max_time) else None
