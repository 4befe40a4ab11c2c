"""From a request's constraint to what keeps a text to it, by llguidance.

Compiling takes a millisecond, and about a second for the worst that the bounds let through (measured: see
docs/dependencies.md); all of it without Python's lock.
"""

from __future__ import annotations

import re
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from threading import Lock

import llguidance.hf
import numpy as np
from llguidance import LLMatcher, LLTokenizer
from transformers import PreTrainedTokenizerFast

from vfastml.engine.dispatch_requests import Constraint
from vfastml.errors import InvalidRequestError, UnsupportedError
from vfastml.text_engine.constraints.grammar_matcher import GrammarMatcher
from vfastml.text_engine.constraints.grammars import PARAM, grammar_of

_CACHED = 256
_QUOTED = re.compile(r"\"[^\"]*\"?|`[^`]*`?|'[^']*'?")


class ConstraintCompiler:
    """Compiles for one tokenizer, and keeps what it has compiled last. Safe to use from several threads.

    `vocab_size` is the model's, which may be more than the tokenizer has; `end_token_ids` may come where a text may
    end. The tokenizer's tokens are read in the background; the first constraint waits for that.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerFast, vocab_size: int, end_token_ids: tuple[int, ...]) -> None:
        ends = list(end_token_ids) or None
        size = max(vocab_size, len(tokenizer))
        self._num_words = -(-size // 32)
        reader = ThreadPoolExecutor(1, thread_name_prefix="constraint-tokens")
        self._tokenizer: Future[LLTokenizer] = reader.submit(
            llguidance.hf.from_tokenizer, tokenizer, n_vocab=size, eos_token=ends
        )
        reader.shutdown(wait=False)
        self._compiled: OrderedDict[Constraint | str, LLMatcher | InvalidRequestError] = OrderedDict()
        self._lock = Lock()

    def matcher(self, constraint: Constraint) -> GrammarMatcher:
        """Of a text at its beginning. Raises InvalidRequestError for a constraint that is wrong or beyond the bounds,
        and UnsupportedError for a model whose tokens are not understood."""
        return self._matcher(constraint, lambda: grammar_of(constraint), f"The {constraint.kind}")

    def of_grammar(self, grammar: str) -> GrammarMatcher:
        """The same for a grammar as llguidance takes it, made here of parts that are within the bounds."""
        return self._matcher(grammar, lambda: grammar, "What the answer must be")

    def _matcher(self, key: Constraint | str, grammar: Callable[[], str], what: str) -> GrammarMatcher:
        with self._lock:
            found = self._compiled.get(key)
            if found is not None:
                self._compiled.move_to_end(key)
        if found is None:
            try:
                found = self._compile(grammar(), what)
            except InvalidRequestError as error:
                found = error  # who asks again is not to take the time again
            self._keep(key, found)
        if isinstance(found, InvalidRequestError):
            raise InvalidRequestError(found.message, param=found.param)
        return GrammarMatcher(found.deep_copy(), self._num_words)

    def _keep(self, key: Constraint | str, compiled: LLMatcher | InvalidRequestError) -> None:
        with self._lock:
            self._compiled[key] = compiled
            if len(self._compiled) > _CACHED:
                self._compiled.popitem(last=False)

    def _compile(self, grammar: str, what: str) -> LLMatcher:
        try:
            tokenizer = self._tokenizer.result()
        except Exception as error:
            raise UnsupportedError("Constraints are not supported for this model's tokenizer.", param=PARAM) from error
        state = LLMatcher(tokenizer, grammar, log_level=0)
        if not state.is_error():
            # Some grammars allow no text at all, which is found out with the first mask.
            first = np.zeros(self._num_words, dtype=np.int32)
            state.unsafe_compute_mask_ptr(first.ctypes.data, first.nbytes)
        if state.is_error():
            raise InvalidRequestError(f"{what} cannot be used: {_reason(state)}.", param=PARAM)
        return state


def _reason(state: LLMatcher) -> str:
    """The library's own words, without what the client has sent."""
    words = _QUOTED.sub("...", state.get_error().split("\n")[0])
    if words.startswith("NoExtension"):
        return "no text would do"
    if words.startswith("panic"):
        return "it is too large"
    return words.strip(" :[(.,")[:160] or "it is malformed"
