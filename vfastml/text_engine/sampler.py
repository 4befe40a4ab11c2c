"""From logits to tokens: each row by its own parameters, in one batched call. Randomness: draw_bits.py."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from vfastml.errors import InvalidRequestError
from vfastml.text_engine.constraints.row_masks import RowMasks
from vfastml.text_engine.draw import Draw
from vfastml.text_engine.draw_bits import draw_bits
from vfastml.text_engine.logits_processors import alter
from vfastml.text_engine.sampling import SampledToken
from vfastml.text_engine.scheduler import ScheduledRow
from vfastml.text_engine.sequence import Sequence as TokenSequence
from vfastml.text_engine.token_scores import candidates, scored
from vfastml.text_engine.truncation import truncate


class Sampler:
    """Chooses tokens. `end_token_ids` and a request's own stop tokens are barred until its min_tokens is reached."""

    def __init__(self, end_token_ids: Sequence[int]) -> None:
        self._end_token_ids = list(end_token_ids)

    def sample_rows(
        self, logits: torch.Tensor, rows: Sequence[ScheduledRow], masks: RowMasks | None = None
    ) -> list[list[SampledToken]]:
        """For each of the step's rows that sample, in order: a token for the sequence and one for each of its forks,
        or a beam's candidates. `logits` [len(rows), vocab_size] float32 may be overwritten."""
        if all(row.sequence.takes_argmax for row in rows):
            tokens = _best(logits)
            return [[SampledToken(token)] * (1 + row.sequence.forks) for token, row in zip(tokens, rows, strict=True)]
        beams = [number for number, row in enumerate(rows) if row.sequence.num_candidates]
        sampled = self._candidates(logits, rows, beams, masks) if beams else {}
        draws = [
            draw for number, row in enumerate(rows) if number not in sampled for draw in _draws(number, row.sequence)
        ]
        for draw, one in zip(draws, self.sample(logits, draws, masks) if draws else (), strict=True):
            sampled.setdefault(draw.row, []).append(one)
        return [sampled[number] for number in range(len(rows))]

    def sample(self, logits: torch.Tensor, draws: Sequence[Draw], masks: RowMasks | None = None) -> list[SampledToken]:
        """One token for each draw. `logits` [S, vocab_size] float32 may be overwritten. Raises InvalidRequestError if
        a request leaves nothing to choose from."""
        rows = [draw.row for draw in draws]
        if rows != list(range(len(logits))):
            logits = logits[rows]
        reported = [row for row, draw in enumerate(draws) if draw.sampling.wants_scores]
        scores = logits[reported].log_softmax(dim=-1) if reported else logits[:0]
        self._restrict(logits, draws, masks)
        return _with_scores(_choose(logits, draws), draws, reported, scores)

    def _candidates(
        self, logits: torch.Tensor, rows: Sequence[ScheduledRow], beams: list[int], masks: RowMasks | None
    ) -> dict[int, list[SampledToken]]:
        """By the numbers of the beams' rows. As in transformers, log probabilities are changed where a sample has its
        logits changed, and their sum need not be 1 afterwards."""
        scores = logits[beams].log_softmax(dim=-1)
        draws = [draw for number in beams for draw in _draws(number, rows[number].sequence)]
        changed = scores.clone()
        self._restrict(changed, draws, masks)
        counts = [rows[number].sequence.num_candidates for number in beams]
        found = candidates(changed, scores, counts, [draw.sampling for draw in draws])
        return dict(zip(beams, found, strict=True))

    def _restrict(self, logits: torch.Tensor, draws: Sequence[Draw], masks: RowMasks | None) -> None:
        """All that is changed before anything is chosen."""
        for row, draw in enumerate(draws):
            if draw.sampling.alters_logits:
                alter(logits[row], draw)
            if draw.bars_at_first:
                logits[row, self._barred_at_first(draw)] = -torch.inf
        if masks is not None:
            masks.apply(logits, [draw.row for draw in draws])
        for row, draw in enumerate(draws):
            if draw.sampling.forbids_tokens and logits[row].max() == -torch.inf:
                raise InvalidRequestError("Nothing that the request allows is left to choose.")

    def _barred_at_first(self, draw: Draw) -> list[int]:
        ends = [] if draw.sampling.ignore_eos else self._end_token_ids
        return [*ends, *draw.sampling.stop_token_ids]


def _draws(row: int, sequence: TokenSequence) -> list[Draw]:
    choices = range(sequence.index, sequence.index + 1 + sequence.forks)
    num_generated = sequence.num_generated + sequence.num_pending
    return [Draw(row, sequence.sampling, choice, num_generated, sequence.tokens) for choice in choices]


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


def _with_scores(
    tokens: list[int], draws: Sequence[Draw], reported: list[int], scores: torch.Tensor
) -> list[SampledToken]:
    """`scores` [len(reported), vocab_size] are the log probabilities of the rows `reported`."""
    sampled = [SampledToken(token) for token in tokens]
    num_top = [draws[row].sampling.logprobs for row in reported]
    for row, one in zip(reported, scored(scores, [tokens[row] for row in reported], num_top), strict=True):
        sampled[row] = one
    return sampled


def _draw_tokens(logits: torch.Tensor, draws: list[Draw]) -> list[int]:
    temperature = logits.new_tensor([draw.sampling.temperature for draw in draws])
    logits = truncate(logits / temperature[:, None], draws)
    return _draw(logits, uniforms(draws))


def uniforms(draws: Sequence[Draw]) -> list[float]:
    """A number in [0, 1) for each draw, that depends on its seed, choice and place alone."""
    return (draw_bits(draws).astype(np.float64) * 2.0**-64 * (1 - 2**-53)).tolist()  # type: ignore[no-any-return]


def _draw(logits: torch.Tensor, uniforms: list[float]) -> list[int]:
    """The token at which the summed probability passes each row's number; one of probability 0 never does."""
    sums = logits.softmax(dim=-1).double().cumsum(dim=-1)
    targets = torch.tensor(uniforms, dtype=torch.float64, device=logits.device)[:, None] * sums[:, -1:]
    return torch.searchsorted(sums, targets, right=True)[:, 0].clamp_(max=logits.shape[-1] - 1).tolist()
