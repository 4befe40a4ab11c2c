"""How much a request may come to, with all that multiplies it."""

from __future__ import annotations

from vfastml.engine.text_parameters import MAX_ANSWER_TOKENS
from vfastml.errors import InvalidRequestError
from vfastml.text_engine.encoded_request import EncodedRequest


def check_answer_size(encoded: EncodedRequest) -> None:
    """Raises InvalidRequestError for more than MAX_ANSWER_TOKENS. Each factor has a bound of its own; their product is
    what memory and time are spent on."""
    if answer_size(encoded) > MAX_ANSWER_TOKENS:
        raise InvalidRequestError(
            "The answer could become too large: prompts times 'n' ('best_of', 'beam_width') times 'max_tokens', with"
            " each token counted again for each of its log probabilities, and the prompt too where it is echoed or has"
            f" 'prompt_logprobs', may be at most {MAX_ANSWER_TOKENS}.",
            param="max_tokens",
        )


def answer_size(encoded: EncodedRequest) -> int:
    """In tokens, each of them counted once and once more for each of its alternatives."""
    request, sampling = encoded.request, encoded.sampling
    size = sampling.max_tokens * (1 + (sampling.logprobs or 0))
    if request.echo or sampling.prompt_logprobs is not None:
        size += len(encoded.prompt_tokens) * (1 + (sampling.prompt_logprobs or 0))
    return max(1, request.num_prompts) * encoded.num_texts * size
