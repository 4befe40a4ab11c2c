"""From logits to tokens: each row by its own parameters, in one batched call.

Randomness is a pure function of (seed, choice, place in the text): there is no generator whose state a neighbour in the
batch, a chunk border or a preemption could move, and the same request gives the same text again.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from vfastml.text_engine.sampling import SampledToken, Sampling
from vfastml.text_engine.scheduler import ScheduledRow
from vfastml.text_engine.sequence import Sequence as TokenSequence

_CANDIDATES = 1024
"""How many of the largest logits are looked at first for top_p; a flatter row is sorted whole."""

_LARGEST_LOGIT = 1e30
"""A penalised logit is held within this: divided by the smallest temperature it is still no infinity."""


@dataclass(frozen=True, slots=True)
class Draw:
    """One token to choose."""

    row: int
    """Of the logits; several draws may share one."""
    sampling: Sampling
    choice: int
    """Which of a request's n choices."""
    num_generated: int
    """Tokens that the choice has so far."""
    tokens: Sequence[int] = ()
    """Those and the prompt's; read only where repetition_penalty asks for it."""

    @property
    def bars_end_tokens(self) -> bool:
        """The choice must not end yet."""
        return self.num_generated < self.sampling.min_tokens and not self.sampling.ignore_eos


class Sampler:
    """Chooses tokens; `end_token_ids` are barred while a request's min_tokens is not reached."""

    def __init__(self, end_token_ids: Sequence[int]) -> None:
        self._end_token_ids = list(end_token_ids)

    def sample_rows(self, logits: torch.Tensor, rows: Sequence[ScheduledRow]) -> list[list[SampledToken]]:
        """For each of the step's rows that sample, in order: a token for the sequence and one for each of its forks.
        `logits` [len(rows), vocab_size] float32 may be overwritten."""
        if all(row.sequence.takes_argmax for row in rows):
            tokens = _best(logits)
            return [[SampledToken(token)] * (1 + row.sequence.forks) for token, row in zip(tokens, rows, strict=True)]
        draws = [draw for number, row in enumerate(rows) for draw in _draws(number, row.sequence)]
        sampled = iter(self.sample(logits, draws))
        return [[next(sampled) for _ in range(1 + row.sequence.forks)] for row in rows]

    def sample(self, logits: torch.Tensor, draws: Sequence[Draw]) -> list[SampledToken]:
        """One token for each draw. `logits` [S, vocab_size] float32 may be overwritten."""
        rows = [draw.row for draw in draws]
        if rows != list(range(len(logits))):
            logits = logits[rows]
        scored = [row for row, draw in enumerate(draws) if draw.sampling.output_scores]
        scores = logits[scored].log_softmax(dim=-1) if scored else logits[:0]
        for row, draw in enumerate(draws):
            if draw.sampling.alters_logits:
                _alter(logits[row], draw)
            if draw.bars_end_tokens:
                logits[row, self._end_token_ids] = -torch.inf
        return _with_scores(_choose(logits, draws), scored, scores)


def _draws(row: int, sequence: TokenSequence) -> list[Draw]:
    choices = range(sequence.index, sequence.index + 1 + sequence.forks)
    return [Draw(row, sequence.sampling, choice, sequence.num_generated, sequence.tokens) for choice in choices]


def _best(logits: torch.Tensor) -> list[int]:
    """Each row's most probable token."""
    if logits.device.type == "cpu":  # numpy's is six times as fast as torch's
        return logits.numpy().argmax(axis=-1).tolist()  # type: ignore[no-any-return]
    return logits.argmax(dim=-1).tolist()


def _choose(logits: torch.Tensor, draws: Sequence[Draw]) -> list[int]:
    tokens = _best(logits)
    random = [row for row, draw in enumerate(draws) if not draw.sampling.greedy]
    if random:
        drawn = _draw_tokens(logits[random], [draws[row] for row in random])
        for row, token in zip(random, drawn, strict=True):
            tokens[row] = token
    return tokens


def _with_scores(tokens: list[int], scored: list[int], scores: torch.Tensor) -> list[SampledToken]:
    """`scores` [len(scored), vocab_size] are the log probabilities of the rows `scored`."""
    sampled = [SampledToken(token) for token in tokens]
    if scored:
        chosen = torch.tensor([[tokens[row]] for row in scored], device=scores.device)
        for row, score in zip(scored, scores.gather(1, chosen)[:, 0].tolist(), strict=True):
            sampled[row] = SampledToken(tokens[row], score)
    return sampled


def _alter(logits: torch.Tensor, draw: Draw) -> None:
    """Bias, then penalty, in place, of one row [vocab_size]. Tokens that have no logit are passed over."""
    bias, penalty = draw.sampling.logit_bias, draw.sampling.repetition_penalty
    if bias:
        known = {token: value for token, value in bias.items() if token < len(logits)}
        logits[list(known)] += logits.new_tensor(list(known.values()))
    if penalty != 1.0:
        seen = torch.tensor(draw.tokens, dtype=torch.int64, device=logits.device)
        seen = seen[seen < len(logits)]
        old = logits[seen]
        new = torch.where(old < 0, old * penalty, old / penalty)
        logits[seen] = new.clamp(-_LARGEST_LOGIT, _LARGEST_LOGIT)


def _draw_tokens(logits: torch.Tensor, draws: list[Draw]) -> list[int]:
    temperature = logits.new_tensor([draw.sampling.temperature for draw in draws])
    logits = logits / temperature[:, None]
    logits = _keep_top_k(logits, [draw.sampling.top_k for draw in draws])
    logits = _keep_top_p(logits, [draw.sampling.top_p for draw in draws])
    return _draw(logits, [uniform(draw.sampling.seed, draw.choice, draw.num_generated) for draw in draws])


def uniform(seed: int, choice: int, place: int) -> float:
    """A number in [0, 1) that depends on these three alone (SplitMix64, Steele et al. 2014, chained)."""
    return _mix(_mix(_mix(seed) ^ choice) ^ place) / 2**64 * (1 - 2**-53)


def _mix(value: int) -> int:
    mask = 2**64 - 1
    value = (value + 0x9E3779B97F4A7C15) & mask
    value = ((value ^ (value >> 30)) * 0xBF58476D1CE4E5B9) & mask
    value = ((value ^ (value >> 27)) * 0x94D049BB133111EB) & mask
    return value ^ (value >> 31)


def _keep_top_k(logits: torch.Tensor, top_k: list[int]) -> torch.Tensor:
    """-inf below each row's k-th largest logit; 0 keeps all. Ties stay, so that no order of equals matters."""
    vocab_size = logits.shape[-1]
    kept = [min(k, vocab_size) if k else vocab_size for k in top_k]
    limited = [row for row, k in enumerate(kept) if k < vocab_size]
    if limited:
        values = logits[limited].topk(max(kept[row] for row in limited)).values
        cutoff = values.gather(1, torch.tensor([[kept[row] - 1] for row in limited], device=logits.device))
        logits[limited] = _at_least(logits[limited], cutoff)
    return logits


def _keep_top_p(logits: torch.Tensor, top_p: list[float]) -> torch.Tensor:
    """-inf outside of each row's smallest set of tokens whose probabilities sum up to p; ties stay."""
    limited = [row for row, p in enumerate(top_p) if p < 1.0]
    if limited:
        cutoff = torch.stack([_top_p_cutoff(logits[row], top_p[row]) for row in limited])
        logits[limited] = _at_least(logits[limited], cutoff[:, None])
    return logits


def _top_p_cutoff(logits: torch.Tensor, top_p: float) -> torch.Tensor:
    """The smallest logit [] that is kept of one row [vocab_size]."""
    total = logits.logsumexp(-1)
    for candidates in (min(_CANDIDATES, len(logits)), len(logits)):
        values = logits.topk(candidates).values
        reached = (values - total).double().exp().cumsum(-1) >= top_p
        if bool(reached[-1]):
            return values[reached.int().argmax()]
    return logits.new_tensor(-torch.inf)  # rounding left the sum of all below p: all are kept


def _at_least(logits: torch.Tensor, cutoff: torch.Tensor) -> torch.Tensor:
    return logits.masked_fill(logits < cutoff, -torch.inf)


def _draw(logits: torch.Tensor, uniforms: list[float]) -> list[int]:
    """The token at which the summed probability passes each row's number; one of probability 0 never does."""
    sums = logits.softmax(dim=-1).double().cumsum(dim=-1)
    targets = torch.tensor(uniforms, dtype=torch.float64, device=logits.device)[:, None] * sums[:, -1:]
    return torch.searchsorted(sums, targets, right=True)[:, 0].clamp_(max=logits.shape[-1] - 1).tolist()
