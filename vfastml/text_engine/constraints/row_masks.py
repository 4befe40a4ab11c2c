"""The masks of a step's constrained rows, found while the model computes the step."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np
import numpy.typing as npt
import torch

from vfastml.text_engine.constraints.token_matcher import TokenMatcher
from vfastml.text_engine.scheduler import ScheduledRow

_WORD_BITS = 32


class RowMasks:
    """Of one step. What a matcher raises is raised by `apply`: it belongs to that step."""

    def __init__(self, matchers: dict[int, TokenMatcher], pending: Future[npt.NDArray[np.int32]]) -> None:
        self._places = {row: place for place, row in enumerate(matchers)}
        self._pending = pending

    def apply(self, logits: torch.Tensor, rows: Sequence[int]) -> None:
        """Sets to -inf, in place, what is forbidden. `rows` says of which of the step's sampling rows each row of
        `logits` [len(rows), vocab_size] is."""
        constrained = [number for number, row in enumerate(rows) if row in self._places]
        if not constrained:
            return
        words = ~self._pending.result()[[self._places[rows[number]] for number in constrained]]
        bits = np.unpackbits(words.view(np.uint8), axis=-1, count=logits.shape[-1], bitorder="little")
        forbidden = torch.from_numpy(bits.view(np.bool_)).to(logits.device)
        if len(constrained) == len(logits):  # then nothing need be copied
            logits.masked_fill_(forbidden, -torch.inf)
        else:
            logits[constrained] = logits[constrained].masked_fill(forbidden, -torch.inf)


class MaskFiller:
    """Fills masks on a thread of its own."""

    def __init__(self, vocab_size: int) -> None:
        self._num_words = -(-vocab_size // _WORD_BITS)
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="token-masks")

    def begin(self, rows: Sequence[ScheduledRow]) -> RowMasks | None:
        """For those of the step's sampling rows that are constrained; None if none is."""
        found = ((number, row.sequence.matcher) for number, row in enumerate(rows))
        matchers = {number: matcher for number, matcher in found if matcher is not None}
        if not matchers:
            return None
        return RowMasks(matchers, self._thread.submit(self._filled, list(matchers.values())))

    def _filled(self, matchers: list[TokenMatcher]) -> npt.NDArray[np.int32]:
        words = np.zeros((len(matchers), self._num_words), dtype=np.int32)
        for matcher, mask in zip(matchers, words, strict=True):
            matcher.fill(mask)
        return words
