"""The model's own log probabilities of tokens, before a request's wishes change anything."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
import torch

from vfastml.text_engine.sampling import SampledToken, Sampling

_ROWS_AT_ONCE = 64
"""Of a prompt: a row of a large vocabulary is some hundred kilobytes, and a prompt has thousands of them."""


def scored(scores: torch.Tensor, tokens: Sequence[int], num_top: Sequence[int | None]) -> list[SampledToken]:
    """These tokens, one for each row of `scores` [rows, vocab_size], log probabilities; with their ranks and the most
    probable tokens where `num_top` says how many."""
    if not tokens:
        return []
    chosen = torch.tensor(tokens, device=scores.device)[:, None]
    own = scores.gather(1, chosen)
    values: list[float] = own[:, 0].tolist()
    if all(count is None for count in num_top):
        return [SampledToken(token, value) for token, value in zip(tokens, values, strict=True)]
    ranks: list[int] = ((scores > own).sum(-1) + 1).tolist()
    most = min(max(count or 0 for count in num_top), scores.shape[-1])
    top = scores.topk(most)
    best = [list(zip(*row, strict=True)) for row in zip(top.indices.tolist(), top.values.tolist(), strict=True)]
    return [
        SampledToken(token, values[row])
        if count is None
        else SampledToken(token, values[row], ranks[row], tuple(best[row][:count]))
        for row, (token, count) in enumerate(zip(tokens, num_top, strict=True))
    ]


def prompt_scored(logits: torch.Tensor, tokens: Sequence[int], num_top: int) -> list[SampledToken]:
    """The same of a piece of a prompt: `logits` [len(tokens), vocab_size] are those from which each could have come."""
    found: list[SampledToken] = []
    for start in range(0, len(tokens), _ROWS_AT_ONCE):
        part = tokens[start : start + _ROWS_AT_ONCE]
        scores = logits[start : start + len(part)].log_softmax(dim=-1)
        found += scored(scores, part, [num_top] * len(part))
    return found


def candidates(
    changed: torch.Tensor, scores: torch.Tensor, counts: Sequence[int], samplings: Sequence[Sampling]
) -> list[list[SampledToken]]:
    """For each beam the tokens that are best by `changed` [beams, vocab_size], as many as `counts` says; `scores` of
    the same shape are the model's own log probabilities."""
    best = changed.topk(min(max(counts), changed.shape[-1]))
    return [
        _of_one_beam(best.indices[row, :count], best.values[row, :count], scores[row], samplings[row])
        for row, count in enumerate(counts)
    ]


def _of_one_beam(
    tokens: torch.Tensor, values: torch.Tensor, scores: torch.Tensor, sampling: Sampling
) -> list[SampledToken]:
    beam_scores: list[float] = values.tolist()
    if not sampling.wants_scores:
        return [
            SampledToken(token, beam_score=score) for token, score in zip(tokens.tolist(), beam_scores, strict=True)
        ]
    rated = scored(scores.expand(len(tokens), -1), tokens.tolist(), [sampling.logprobs] * len(tokens))
    return [msgspec.structs.replace(one, beam_score=score) for one, score in zip(rated, beam_scores, strict=True)]
