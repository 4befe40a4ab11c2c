"""Which tokens a random choice is made among: each row [vocab_size] keeps its own share, the rest becomes -inf.

Ties with the last one that is kept stay, so that no order of equals matters.
"""

from __future__ import annotations

import math

import numpy as np
import torch

from vfastml.text_engine.draw import Draw

_CANDIDATES = 1024
"""How many of the largest logits are looked at first for top_p; a flatter row is sorted whole."""


def truncate(logits: torch.Tensor, draws: list[Draw]) -> torch.Tensor:
    """top_k, top_p, min_p, typical_p, in this order, as transformers has it; `logits` may be overwritten."""
    logits = keep_top_k(logits, [draw.sampling.top_k for draw in draws])
    logits = keep_top_p(logits, [draw.sampling.top_p for draw in draws])
    logits = keep_min_p(logits, [draw.sampling.min_p for draw in draws])
    return keep_typical_p(logits, [draw.sampling.typical_p for draw in draws])


def keep_top_k(logits: torch.Tensor, top_k: list[int]) -> torch.Tensor:
    """Each row's k most probable tokens; 0 keeps all."""
    vocab_size = logits.shape[-1]
    kept = [min(k, vocab_size) if k else vocab_size for k in top_k]
    limited = [row for row, k in enumerate(kept) if k < vocab_size]
    if limited:
        values = logits[limited].topk(max(kept[row] for row in limited)).values
        cutoff = values.gather(1, torch.tensor([[kept[row] - 1] for row in limited], device=logits.device))
        logits[limited] = _at_least(logits[limited], cutoff)
    return logits


def keep_top_p(logits: torch.Tensor, top_p: list[float]) -> torch.Tensor:
    """Each row's smallest set of most probable tokens whose probabilities sum up to p (Holtzman et al. 2020)."""
    for row, p in zip(logits, top_p, strict=True):
        if p < 1.0:
            row.masked_fill_(row < _top_p_cutoff(row, p), -torch.inf)
    return logits


def keep_min_p(logits: torch.Tensor, min_p: list[float]) -> torch.Tensor:
    """The tokens that have at least p times the probability of the row's most probable one (Nguyen et al. 2024)."""
    limited = [row for row, p in enumerate(min_p) if p > 0.0]
    if limited:
        share = logits.new_tensor([[math.log(min_p[row])] for row in limited])
        logits[limited] = _at_least(logits[limited], logits[limited].amax(-1, keepdim=True) + share)
    return logits


def keep_typical_p(logits: torch.Tensor, typical_p: list[float]) -> torch.Tensor:
    """Each row's smallest set of tokens, nearest first to the distribution's entropy, whose probabilities sum up to p
    (Meister et al. 2022)."""
    for row, mass in enumerate(typical_p):
        if mass < 1.0:
            logits[row] = _keep_typical(logits[row], mass)
    return logits


def _keep_typical(logits: torch.Tensor, mass: float) -> torch.Tensor:
    surprise = -logits.log_softmax(-1)
    probabilities = (-surprise).exp()
    entropy = (surprise * probabilities).nansum()  # 0 times infinity, for what is cut off already
    distance, order = (surprise - entropy).abs().sort()
    last = int((probabilities[order].double().cumsum(-1) < mass).sum())
    cutoff = distance[min(last, len(distance) - 1)]
    return logits.masked_fill((surprise - entropy).abs() > cutoff, -torch.inf)


def _top_p_cutoff(logits: torch.Tensor, top_p: float) -> torch.Tensor:
    """The smallest logit [] that is kept of one row [vocab_size]."""
    total = logits.logsumexp(-1)
    for descending in (_largest, _descending):
        values = descending(logits)
        reached = (values - total).double().exp().cumsum(-1) >= top_p
        if bool(reached[-1]):
            return values[reached.int().argmax()]
    return logits.new_tensor(-torch.inf)  # rounding left the sum of all below p: all are kept


def _largest(logits: torch.Tensor) -> torch.Tensor:
    return logits.topk(min(_CANDIDATES, len(logits))).values


def _descending(logits: torch.Tensor) -> torch.Tensor:
    if logits.device.type == "cpu":  # numpy's is many times as fast as torch's
        return torch.from_numpy(np.sort(logits.numpy())).flip(0)
    return logits.sort(descending=True).values


def _at_least(logits: torch.Tensor, cutoff: torch.Tensor) -> torch.Tensor:
    return logits.masked_fill(logits < cutoff, -torch.inf)
