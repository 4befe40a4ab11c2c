"""TokenMatcher of a compiled grammar."""

from __future__ import annotations

import numpy as np
from llguidance import LLMatcher

from vfastml.errors import InvalidRequestError
from vfastml.text_engine.constraints.token_matcher import TokenMask


class GrammarMatcher:
    """See TokenMatcher. Raises InvalidRequestError where the grammar has become too complex to go on with, which only
    the text shows."""

    def __init__(self, state: LLMatcher, num_words: int) -> None:
        self._state = state
        self._num_words = num_words
        """Of the grammar's own masks, which have a bit for each token of the tokenizer."""

    @property
    def is_over(self) -> bool:
        """See TokenMatcher."""
        return bool(self._state.is_stopped())

    def accept(self, token: int) -> None:
        """See TokenMatcher."""
        self._state.consume_token(token)
        self._check()

    def fork(self) -> GrammarMatcher:
        """See TokenMatcher."""
        return GrammarMatcher(self._state.deep_copy(), self._num_words)

    def fill(self, mask: TokenMask) -> None:
        """See TokenMatcher."""
        words = mask if len(mask) == self._num_words else np.zeros(self._num_words, dtype=np.int32)
        self._state.unsafe_compute_mask_ptr(words.ctypes.data, words.nbytes)
        self._check()
        if words is not mask:
            shared = min(len(mask), self._num_words)
            mask[:shared], mask[shared:] = words[:shared], 0

    def _check(self) -> None:
        if self._state.is_error():
            raise InvalidRequestError("The constraint is too complex for this text to go on.")
