"""What rows ask for gets to the device as it is, and their tokens come from there."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch

pytest.importorskip("triton")

from vfastml.text_engine.device_sampler import DeviceSampler, SamplingRows
from vfastml.text_engine.draw import Draw
from vfastml.text_engine.draw_bits import draw_bits
from vfastml.text_engine.sampling import Sampling
from vfastml.text_engine.sequence import Sequence

DEVICE = torch.device("cuda:0" if torch.cuda.is_available() else "cpu")
CPU = torch.device("cpu")


def draw(*, choice: int = 0, num_generated: int = 0, **sampling: Any) -> Draw:
    return Draw(0, Sampling(max_tokens=1 << 20, **sampling), choice, num_generated)


DRAWS = [
    draw(temperature=0.7, top_p=0.9, top_k=40, min_p=0.05, seed=-5, choice=2, num_generated=7),
    draw(seed=2**63 - 1, top_k=10**12),
    draw(temperature=1e-6, seed=3),
    draw(temperature=1e-5, top_p=0.1, min_p=1.0),
]


def test_rows_hold_what_is_asked() -> None:
    rows = SamplingRows.of(DRAWS, CPU)
    assert len(rows) == 4
    assert rows.temperature.tolist() == np.array([0.7, 1.0, 0.0, 1e-5], dtype=np.float32).tolist()
    assert rows.top_p.tolist() == np.array([0.9, 1.0, 1.0, 0.1], dtype=np.float32).tolist()
    assert rows.top_k.tolist() == [40, 2**31 - 1, 0, 0]
    assert rows.log_min_p.tolist() == [float(np.float32(math.log(0.05))), -math.inf, -math.inf, 0.0]
    assert rows.seeds.tolist() == [int(bits) >> 1 for bits in draw_bits(DRAWS)]
    dtypes = [rows.temperature.dtype, rows.top_p.dtype, rows.log_min_p.dtype, rows.top_k.dtype, rows.seeds.dtype]
    assert dtypes == [torch.float32, torch.float32, torch.float32, torch.int32, torch.int64]


def test_buffer_is_larger_than_its_draws_and_written_again() -> None:
    host = np.full(SamplingRows.num_words(6), -1, dtype=np.int64)  # not a number as temperature and top_p
    device = torch.full((SamplingRows.num_words(6),), -1, dtype=torch.int64)
    static = SamplingRows.view(device)
    for draws in (DRAWS, DRAWS[:2], []):
        SamplingRows.fill(host, draws)
        device.copy_(torch.from_numpy(host))
        expected = SamplingRows.of(draws, CPU)
        for name in ("seeds", "temperature", "top_p", "log_min_p", "top_k"):
            some = getattr(static.first(len(draws)), name)
            assert some.is_contiguous()
            assert some.tolist() == getattr(expected, name).tolist()
        assert static.temperature[len(draws) :].eq(0).all()


def test_no_rows() -> None:
    rows = SamplingRows.of([], DEVICE)
    assert DeviceSampler().sample(torch.zeros(0, 9, device=DEVICE), rows).tolist() == []


def test_tokens_of_all_kinds_of_rows() -> None:
    logits = torch.randn(4, 300, generator=torch.Generator().manual_seed(1)).to(DEVICE)
    out = torch.full((6,), -1, device=DEVICE)
    tokens = DeviceSampler().sample(logits, SamplingRows.of(DRAWS, DEVICE), out[1:5])
    assert out.tolist() == [-1, *tokens.tolist(), -1]
    assert tokens[2:].tolist() == logits[2:].argmax(-1).tolist()
    assert DeviceSampler().sample(logits, SamplingRows.of(DRAWS, DEVICE)).tolist() == tokens.tolist()


def test_seed_choice_and_place_each_give_another_token() -> None:
    draws = [draw(seed=11), draw(seed=11), draw(seed=12), draw(seed=11, choice=1), draw(seed=11, num_generated=1)]
    tokens = DeviceSampler().sample(torch.zeros(5, 50_000, device=DEVICE), SamplingRows.of(draws, DEVICE)).tolist()
    assert tokens[0] == tokens[1]
    assert len(set(tokens)) == 4


@pytest.mark.parametrize(
    ("fields", "is_plain"),
    [
        ({}, True),
        ({"temperature": 0.5, "top_k": 3, "top_p": 0.5, "min_p": 0.1, "stop": ("a",), "max_time": 1.0}, True),
        ({"min_tokens": 3, "ignore_eos": True}, True),
        ({"min_tokens": 3}, False),
        ({"min_tokens": 3, "ignore_eos": True, "stop_token_ids": (1,)}, False),
        ({"typical_p": 0.5}, False),
        ({"typical_p": 0.5, "temperature": 0.0}, True),
        ({"logprobs": 0}, False),
        ({"output_scores": True}, False),
        ({"is_ranked": True}, False),
        ({"logit_bias": {1: 1.0}}, False),
        ({"repetition_penalty": 1.1}, False),
        ({"frequency_penalty": 1.1}, False),
        ({"presence_penalty": 1.1}, False),
        ({"allowed_token_ids": (1,)}, False),
        ({"barred_tokens": ((1,),)}, False),
    ],
)
def test_what_asks_for_nothing_but_a_token_is_plain(fields: dict[str, Any], is_plain: bool) -> None:
    sampling = Sampling(max_tokens=9, **fields)
    assert sampling.is_plain == is_plain
    assert Sequence("r", [1], sampling, arrival=0).is_plain == is_plain
    assert not Sequence("r", [1], sampling, arrival=0, num_candidates=2).is_plain


def test_constrained_text_is_not_plain() -> None:
    matcher: Any = object()
    assert not Sequence("r", [1], Sampling(max_tokens=9), arrival=0, matcher=matcher).is_plain
