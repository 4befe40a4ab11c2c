"""Paged attention against the definition, written out in float64 over each row's own keys and values."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np
import pytest
import torch

from vfastml.text_engine.attention import sdpa
from vfastml.text_engine.attention.interface import AttentionOptions
from vfastml.text_engine.attention.sdpa import SdpaAttention
from vfastml.text_engine.batch_inputs import BatchInputs
from vfastml.text_engine.kv_cache import KVCache, KVShape

BLOCK = 4
NUM_BLOCKS = 128
HUGE = 1e30


@dataclass
class Rows:
    """Rows of (tokens before this step, tokens of this step), with random blocks, keys, values and queries."""

    lengths: list[tuple[int, int]]
    kv_heads: int = 2
    group: int = 3
    key_dim: int = 8
    value_dim: int = 8
    cache: KVCache = field(init=False)

    def __post_init__(self) -> None:
        shape = KVShape(self.kv_heads, self.key_dim, self.value_dim)
        self.cache = KVCache([shape], NUM_BLOCKS, BLOCK, torch.float32, torch.device("cpu"))
        self.cache.keys[0].fill_(HUGE)  # whatever is read beyond a row's own tokens shows
        self.cache.values[0].fill_(HUGE)
        generator = torch.Generator().manual_seed(len(self.lengths))

        def random(count: int, heads: int, dim: int) -> torch.Tensor:
            return torch.randn(count, heads, dim, generator=generator)

        totals = [before + new for before, new in self.lengths]
        self.keys = [random(total, self.kv_heads, self.key_dim) for total in totals]
        self.values = [random(total, self.kv_heads, self.value_dim) for total in totals]
        self.queries = [random(new, self.kv_heads * self.group, self.key_dim) for _, new in self.lengths]
        blocks = iter(torch.randperm(NUM_BLOCKS, generator=generator).tolist())
        self.tables = [np.array([next(blocks) for _ in range(-(-total // BLOCK))], dtype=np.int64) for total in totals]

    def attend(self, options: AttentionOptions) -> list[torch.Tensor]:
        """Writes what came before, then attends to one step. One output for each row."""
        for (before, _), table, keys, values in zip(self.lengths, self.tables, self.keys, self.values, strict=True):
            self.cache.write(0, slots_of(table, 0, before), keys[:before], values[:before])
        attention = SdpaAttention(self.cache)
        key, value, meta = self.new(self.keys), self.new(self.values), attention.prepare(self.inputs())
        output = attention.forward(0, torch.cat(self.queries), key, value, meta, options)
        return list(output.split([count for _, count in self.lengths]))

    def new(self, tensors: list[torch.Tensor]) -> torch.Tensor:
        """What belongs to this step's tokens."""
        return torch.cat([tensor[before:] for tensor, (before, _) in zip(tensors, self.lengths, strict=True)])

    def inputs(self) -> BatchInputs:
        spans = [(before, before + new) for before, new in self.lengths]
        query_starts = np.cumsum([0, *(new for _, new in self.lengths)], dtype=np.int32)
        return BatchInputs(
            input_ids=torch.zeros(int(query_starts[-1]), dtype=torch.int64),
            position_ids=torch.cat([torch.arange(*span) for span in spans]),
            slots=torch.cat([slots_of(table, *span) for table, span in zip(self.tables, spans, strict=True)]),
            logits_index=torch.tensor([], dtype=torch.int64),
            query_starts=query_starts,
            context_lens=np.array([end for _, end in spans], dtype=np.int32),
            block_tables=np.concatenate(self.tables, dtype=np.int32),
            block_starts=np.cumsum([0, *map(len, self.tables)], dtype=np.int32),
        )

    def expected(self, row: int, options: AttentionOptions) -> torch.Tensor:
        before, _ = self.lengths[row]
        keys, values = (tensor[row].double() for tensor in (self.keys, self.values))
        output = torch.empty(*self.queries[row].shape[:2], self.value_dim, dtype=torch.float64)
        for place, query in enumerate(self.queries[row].double(), start=before):
            first = 0 if options.sliding_window is None else max(0, place + 1 - options.sliding_window)
            for head in range(len(query)):
                seen = slice(first, place + 1)
                scores = keys[seen, head // self.group] @ query[head] * options.scaling
                if options.softcap is not None:
                    scores = options.softcap * torch.tanh(scores / options.softcap)
                output[place - before, head] = scores.softmax(0) @ values[seen, head // self.group]
        return output


def slots_of(table: np.ndarray, start: int, end: int) -> torch.Tensor:
    places = np.arange(start, end)
    return torch.from_numpy(table[places // BLOCK] * BLOCK + places % BLOCK)


def assert_attends(rows: Rows, **options: float | int | None) -> None:
    asked = AttentionOptions(**{"scaling": 1 / math.sqrt(rows.key_dim), **options})  # type: ignore[arg-type]
    for row, output in enumerate(rows.attend(asked)):
        assert output.shape == (rows.lengths[row][1], rows.kv_heads * rows.group, rows.value_dim)
        assert (output - rows.expected(row, asked)).abs().max() < 1e-5


PREFILL = [(0, 7), (0, 4), (0, 2)]
CHUNKED = [(5, 6), (4, 4), (8, 3), (3, 2)]
DECODE = [(0, 1), (3, 1), (4, 1), (11, 1)]
UNEQUAL = [(1, 1), (60, 1), (2, 1), (33, 1), (63, 1), (0, 1), (16, 1), (15, 1), (64, 1)]
MIXED = [(5, 1), (0, 9), (30, 1), (8, 5), (0, 1), (12, 1)]


@pytest.mark.parametrize("lengths", [PREFILL, CHUNKED, DECODE, UNEQUAL, MIXED])
@pytest.mark.parametrize("group", [1, 3, 8])
def test_rows_of_each_kind(lengths: list[tuple[int, int]], group: int) -> None:
    assert_attends(Rows(lengths, group=group))


@pytest.mark.parametrize(("key_dim", "value_dim"), [(12, 8), (8, 12), (16, 4)])
def test_keys_and_values_of_other_sizes(key_dim: int, value_dim: int) -> None:
    assert_attends(Rows(MIXED, key_dim=key_dim, value_dim=value_dim))


@pytest.mark.parametrize("window", [1, 3, 4, 5, 13, 100])
def test_sliding_window(window: int) -> None:
    assert_attends(Rows(MIXED), sliding_window=window)


@pytest.mark.parametrize("softcap", [0.5, 30.0])
@pytest.mark.parametrize("window", [None, 6])
def test_softcap(softcap: float, window: int | None) -> None:
    assert_attends(Rows(MIXED, key_dim=8, value_dim=12), softcap=softcap, sliding_window=window)


def test_scaling_is_the_models_own() -> None:
    assert_attends(Rows(MIXED), scaling=0.9)


@pytest.mark.parametrize("most", [1, 3, 4, 8])
def test_long_prefill_is_attended_to_in_pieces(monkeypatch: pytest.MonkeyPatch, most: int) -> None:
    monkeypatch.setattr(sdpa, "_MAX_QUERIES", most)
    assert_attends(Rows([(0, 21), (9, 13), (7, 1), (0, 8)]), sliding_window=6)
    rows = Rows([(5, 13)])
    groups = SdpaAttention(rows.cache).prepare(rows.inputs()).groups
    assert len(groups) == -(-13 // most)
    assert [len(group.key_positions) for group in groups] == sorted(len(group.key_positions) for group in groups)


def test_layers_with_other_windows_do_not_share_a_mask() -> None:
    rows = Rows(MIXED)
    attention = SdpaAttention(rows.cache)
    meta = attention.prepare(rows.inputs())
    rows.attend(AttentionOptions(1.0))  # writes what came before
    key, value = rows.new(rows.keys), rows.new(rows.values)
    for window in (None, 2, 5):
        options = AttentionOptions(0.5, window)
        output = attention.forward(0, torch.cat(rows.queries), key, value, meta, options)
        expected = torch.cat([rows.expected(row, options) for row in range(len(rows.lengths))])
        assert (output - expected).abs().max() < 1e-5


def test_long_and_short_decodes_are_not_padded_to_each_other() -> None:
    rows = Rows(UNEQUAL)
    groups = SdpaAttention(rows.cache).prepare(rows.inputs()).groups
    for group in groups:
        shortest = int(group.query_positions.min()) + 1
        assert len(group.key_positions) <= 2 * shortest + BLOCK


def test_layers_of_another_device_get_the_step_there_once() -> None:
    """`meta` stands for another GPU: it computes shapes alone, and refuses what lies elsewhere."""
    away = torch.device("meta")
    rows = Rows([(0, 5), (6, 1), (9, 1)])
    shapes = [KVShape(2, 8, 8), KVShape(2, 8, 8, away)]
    attention = SdpaAttention(KVCache(shapes, NUM_BLOCKS, BLOCK, torch.float32, torch.device("cpu")))
    query, key, value = torch.cat(rows.queries), rows.new(rows.keys), rows.new(rows.values)
    meta = attention.prepare(rows.inputs())
    here = attention.forward(0, query, key, value, meta, AttentionOptions(1.0))
    assert not meta.elsewhere  # one device pays nothing
    there = attention.forward(1, query.to(away), key.to(away), value.to(away), meta, AttentionOptions(1.0))
    assert (there.device, there.shape) == (away, here.shape)
    moved = meta.elsewhere[away]
    attention.forward(1, query.to(away), key.to(away), value.to(away), meta, AttentionOptions(1.0))
    assert meta.elsewhere == {away: moved}
    assert meta.on(query.device) is meta
