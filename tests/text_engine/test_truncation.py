"""The cut of top_p is where the sum of probabilities, the largest first, reaches p; however flat the row is."""

from __future__ import annotations

import pytest
import torch

from vfastml.text_engine import truncation
from vfastml.text_engine.truncation import keep_top_p


def least_kept(logits: torch.Tensor, top_p: float) -> float:
    """Of one row, by sorting it whole with torch."""
    values = logits.sort(descending=True).values
    reached = (values - logits.logsumexp(-1)).double().exp().cumsum(-1) >= top_p
    return float(values[reached.int().argmax()]) if bool(reached[-1]) else -torch.inf


def rows(vocab_size: int) -> torch.Tensor:
    """Random, flat, tied, equal, mostly barred and two-valued."""
    random = torch.randn(vocab_size, generator=torch.Generator().manual_seed(0))
    barred = random.masked_fill(torch.arange(vocab_size) % 3 > 0, -torch.inf)
    two = (torch.arange(vocab_size) % 2).float()
    return torch.stack([random * 4, random / 100, random.round(), torch.zeros(vocab_size), barred, two])


@pytest.mark.parametrize("top_p", [1e-9, 0.3, 0.5, 0.9, 0.999, 1 - 1e-12])
@pytest.mark.parametrize("vocab_size", [5, truncation._CANDIDATES, 5000])
def test_cut_is_that_of_a_sorted_row(vocab_size: int, top_p: float) -> None:
    logits = rows(vocab_size)
    expected = [row.masked_fill(row < least_kept(row, top_p), -torch.inf) for row in logits]
    assert torch.equal(keep_top_p(logits.clone(), [top_p] * len(logits)), torch.stack(expected))


def test_row_that_is_no_number_is_kept_as_it_is() -> None:
    logits = torch.full((1, 5000), torch.nan)
    assert keep_top_p(logits, [0.5]).isnan().all()
