"""The parameters of text generation and the values that each may have.

One table for all who take them: requests, forward parameters and a server's own defaults. The HTTP schema has ranges of
its own, which lie within these.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import msgspec

from vfastml.engine.repetition_detection import RepetitionDetection
from vfastml.errors import InvalidRequestError

MAX_BIASED_TOKENS = 300
"""Entries of logit_bias."""
MAX_STOP_TOKENS = 128
"""Entries of stop_token_ids."""
MAX_BAD_WORDS = 256
MAX_LOGPROBS = 20
"""Alternatives of each token."""
MAX_ANSWER_TOKENS = 1 << 22
"""That all texts of a request may come to, each token counted once and once more for each of its alternatives."""

_INT64 = range(-(1 << 63), 1 << 63)


@dataclass(frozen=True, slots=True)
class Parameter:
    """`words` complete the sentence "'name' must be ..."."""

    type: Any
    words: str
    in_range: Callable[[Any], bool] = lambda value: True


def _is_bias(bias: Mapping[int, float]) -> bool:
    sound = all(token >= 0 and -100.0 <= value <= 100.0 for token, value in bias.items())
    return sound and len(bias) <= MAX_BIASED_TOKENS


PARAMETERS: Mapping[str, Parameter] = {
    "max_tokens": Parameter(int, "a whole number, at least 0", lambda count: count >= 0),
    "min_tokens": Parameter(int, "a whole number, at least 0", lambda count: count >= 0),
    "max_time": Parameter(float, "a number of seconds, more than 0", lambda seconds: 0.0 < seconds < math.inf),
    "num_generations": Parameter(int, "a whole number, at least 1", lambda count: count >= 1),
    "n": Parameter(int, "a whole number, at least 1", lambda count: count >= 1),
    "seed": Parameter(int, "a whole number of 64 bits", _INT64.__contains__),
    "repetition_penalty": Parameter(float, "a number, more than 0", lambda penalty: 0.0 < penalty < math.inf),
    "temperature": Parameter(float, "a number between 0 and 2", lambda heat: 0.0 <= heat <= 2.0),
    "top_p": Parameter(float, "a number, more than 0 and at most 1", lambda share: 0.0 < share <= 1.0),
    "top_k": Parameter(int, "a whole number, at least 0", lambda count: count >= 0),
    "logit_bias": Parameter(
        dict[int, float], f"at most {MAX_BIASED_TOKENS} token ids, each with a number between -100 and 100", _is_bias
    ),
    "stop": Parameter(tuple[str, ...], "a list of strings, none of them empty", all),
    "ignore_eos": Parameter(bool, "true or false"),
    "output_scores": Parameter(bool, "true or false"),
    "min_p": Parameter(float, "a number between 0 and 1", lambda share: 0.0 <= share <= 1.0),
    "typical_p": Parameter(float, "a number, more than 0 and at most 1", lambda share: 0.0 < share <= 1.0),
    "frequency_penalty": Parameter(float, "a number between -2 and 2", lambda penalty: -2.0 <= penalty <= 2.0),
    "presence_penalty": Parameter(float, "a number between -2 and 2", lambda penalty: -2.0 <= penalty <= 2.0),
    "allowed_token_ids": Parameter(tuple[int, ...], "a list of token ids, not empty", bool),
    "bad_words": Parameter(
        tuple[str, ...],
        f"a list of at most {MAX_BAD_WORDS} strings, none of them empty",
        lambda words: all(words) and len(words) <= MAX_BAD_WORDS,
    ),
    "stop_token_ids": Parameter(
        tuple[int, ...], f"a list of at most {MAX_STOP_TOKENS} token ids", lambda ids: len(ids) <= MAX_STOP_TOKENS
    ),
    "include_stop_str_in_output": Parameter(bool, "true or false"),
    "logprobs": Parameter(int, f"a whole number between 0 and {MAX_LOGPROBS}", range(MAX_LOGPROBS + 1).__contains__),
    "prompt_logprobs": Parameter(
        int, f"a whole number between 0 and {MAX_LOGPROBS}", range(MAX_LOGPROBS + 1).__contains__
    ),
    "skip_special_tokens": Parameter(bool, "true or false"),
    "repetition_detection": Parameter(
        RepetitionDetection,
        "max_pattern_size and min_pattern_size (1 to 256) and min_count (2 to 64)",
        lambda detection: detection.is_sound,
    ),
    "stream": Parameter(bool, "true or false"),
    "use_cache": Parameter(bool, "true: the cache of keys and values cannot be turned off", bool),
}


def checked(name: str, value: Any) -> Any:
    """The value, in its parameter's type. Raises InvalidRequestError, which names the parameter."""
    parameter = PARAMETERS[name]
    try:
        converted = msgspec.convert(value, parameter.type, str_keys=True)
    except (msgspec.ValidationError, RecursionError):
        in_range = False
    else:
        in_range = parameter.in_range(converted)
    if not in_range:
        raise InvalidRequestError(f"'{name}' must be {parameter.words}.", param=name)
    return converted


def check_token_bounds(min_tokens: int | None, max_tokens: int | None) -> None:
    """Raises InvalidRequestError if both are asked for and contradict each other."""
    if min_tokens is not None and max_tokens is not None and min_tokens > max_tokens:
        message = "'min_tokens' must not be larger than the maximum that is asked for."
        raise InvalidRequestError(message, param="min_tokens")
