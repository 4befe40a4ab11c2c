"""What a request wants changed in the logits before anything is chosen: each of one row [vocab_size] float32, in place.

Tokens that have no logit are passed over.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

import torch

from vfastml.text_engine.draw import Draw

_LARGEST_LOGIT = 1e30
"""A penalised logit is held within this: divided by the smallest temperature it is still no infinity."""


def alter(logits: torch.Tensor, draw: Draw) -> None:
    """All that the draw's request asks for, in this order."""
    sampling = draw.sampling
    if sampling.logit_bias:
        add_bias(logits, sampling.logit_bias)
    if sampling.allowed_token_ids:
        keep_only(logits, sampling.allowed_token_ids)
    if sampling.barred_tokens:
        bar(logits, _completing(sampling.barred_tokens, draw.generated))
    if sampling.repetition_penalty != 1.0:
        penalise_repetition(logits, draw.tokens, sampling.repetition_penalty)
    if draw.num_generated and (sampling.frequency_penalty or sampling.presence_penalty):
        penalise_use(logits, draw.generated, sampling.frequency_penalty, sampling.presence_penalty)


def add_bias(logits: torch.Tensor, bias: Mapping[int, float]) -> None:
    """To each token its own."""
    known = {token: value for token, value in bias.items() if token < len(logits)}
    logits[list(known)] += logits.new_tensor(list(known.values()))


def keep_only(logits: torch.Tensor, tokens: Sequence[int]) -> None:
    """-inf for all others."""
    allowed = _known(logits, tokens)
    kept = logits[allowed]
    logits.fill_(-torch.inf)
    logits[allowed] = kept


def bar(logits: torch.Tensor, tokens: Sequence[int]) -> None:
    """-inf for these."""
    logits[_known(logits, tokens)] = -torch.inf


def penalise_repetition(logits: torch.Tensor, tokens: Sequence[int], penalty: float) -> None:
    """Positive logits of these tokens are divided by the penalty, negative ones multiplied (Keskar et al. 2019)."""
    seen = _known(logits, tokens)
    old = logits[seen]
    new = torch.where(old < 0, old * penalty, old / penalty)
    logits[seen] = new.clamp(-_LARGEST_LOGIT, _LARGEST_LOGIT).where(old > -torch.inf, old)


def penalise_use(logits: torch.Tensor, tokens: Sequence[int], frequency: float, presence: float) -> None:
    """Takes `presence` from each of these tokens, and `frequency` for each time that it is there."""
    counts = Counter(tokens)
    add_bias(logits, {token: -(frequency * count + presence) for token, count in counts.items()})


def _completing(words: Sequence[Sequence[int]], tokens: Sequence[int]) -> list[int]:
    """The last tokens of those words whose other tokens are the newest ones here."""
    return [word[-1] for word in words if _ends_with(tokens, word[:-1])]


def _ends_with(tokens: Sequence[int], end: Sequence[int]) -> bool:
    return not end or tuple(tokens[-len(end) :]) == tuple(end)


def _known(logits: torch.Tensor, tokens: Sequence[int]) -> torch.Tensor:
    given = torch.tensor(tokens, dtype=torch.int64, device=logits.device)
    return given[given < len(logits)]
