"""The best of a request's choices."""

from __future__ import annotations

import msgspec

from vfastml.engine.dispatch_replies import Delta


class BestOf:
    """Keeps choices back until all have ended; then the `num_answers` best of them are answered, the best first. Each
    is one delta, because such a request does not stream; the last one counts the tokens of those left out, too."""

    def __init__(self, num_choices: int, num_answers: int) -> None:
        self._num_choices = num_choices
        self._num_answers = num_answers
        self._ended: list[tuple[float, Delta]] = []

    def end(self, delta: Delta, mean_score: float) -> list[Delta]:
        """A choice has ended, with this mean log probability of its tokens. Returns what is to be sent now."""
        self._ended.append((mean_score, delta))
        if len(self._ended) < self._num_choices:
            return []
        ranked = [delta for _, delta in sorted(self._ended, key=lambda ended: (-ended[0], ended[1].index))]
        best, others = ranked[: self._num_answers], ranked[self._num_answers :]
        num_tokens = best[-1].num_tokens + sum(delta.num_tokens for delta in others)
        best[-1] = msgspec.structs.replace(best[-1], num_tokens=num_tokens)
        return [msgspec.structs.replace(delta, index=index) for index, delta in enumerate(best)]
