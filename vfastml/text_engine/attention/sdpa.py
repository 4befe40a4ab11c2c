"""The reference backend: torch's scaled_dot_product_attention over gathered blocks. Correct on every device.

Rows are put into groups: each prefill row for itself, decode rows together where their contexts are of like length
(padded to the longest of the group). The query heads that share a KV head become further query rows of that head, so
keys and values are never repeated.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import torch
from torch.nn.functional import scaled_dot_product_attention

from vfastml.text_engine.attention.interface import AttentionOptions
from vfastml.text_engine.batch_inputs import BatchInputs, Int32Array
from vfastml.text_engine.kv_cache import KVCache

_MAX_QUERIES = 512
"""Longer prefills are attended to piece by piece, which bounds the score matrix."""


@dataclass(slots=True)
class _Group:
    """B rows of Q queries each, over N blocks."""

    tokens: torch.Tensor | slice
    """Which of the step's T tokens are the queries: B * Q of them."""
    blocks: torch.Tensor
    """[B * N] int64."""
    query_positions: torch.Tensor
    """[B, Q]."""
    key_positions: torch.Tensor
    """[K], K = N * block_size."""
    masks: dict[tuple[int | None, int, torch.dtype], torch.Tensor] = field(default_factory=dict)

    def to(self, device: torch.device) -> _Group:
        """The same on another device; it makes masks of its own there."""
        return _Group(
            self.tokens if isinstance(self.tokens, slice) else self.tokens.to(device),
            self.blocks.to(device),
            self.query_positions.to(device),
            self.key_positions.to(device),
        )

    def mask(self, window: int | None, heads_per_kv: int, dtype: torch.dtype) -> torch.Tensor:
        """[B, 1, heads_per_kv * Q, K]: 0 where a query sees a key, else -inf. Made once for each kind of layer."""
        kind = (window, heads_per_kv, dtype)
        if kind not in self.masks:
            distance = self.query_positions[:, :, None] - self.key_positions
            hidden = distance < 0
            if window is not None:
                hidden |= distance >= window
            mask = torch.zeros(hidden.shape, dtype=dtype, device=hidden.device).masked_fill_(hidden, -torch.inf)
            self.masks[kind] = mask.repeat(1, heads_per_kv, 1)[:, None]
        return self.masks[kind]


@dataclass(frozen=True, slots=True)
class SdpaMeta:
    """One step's slots and groups."""

    slots: torch.Tensor
    groups: tuple[_Group, ...]
    elsewhere: dict[torch.device, SdpaMeta] = field(default_factory=dict)
    """On the other devices of a model that is spread over several."""

    def on(self, device: torch.device) -> SdpaMeta:
        """The same where a layer computes; moved there once in a step."""
        if device == self.slots.device:
            return self
        if device not in self.elsewhere:
            self.elsewhere[device] = SdpaMeta(self.slots.to(device), tuple(group.to(device) for group in self.groups))
        return self.elsewhere[device]


class SdpaAttention:
    """AttentionBackend on a KVCache."""

    name = "sdpa"

    def __init__(self, cache: KVCache) -> None:
        self._cache = cache

    def prepare(self, inputs: BatchInputs) -> SdpaMeta:
        """See AttentionBackend."""
        query_lens = np.diff(inputs.query_starts)
        groups = [group for row in np.flatnonzero(query_lens > 1) for group in self._prefill_groups(inputs, row)]
        decodes = np.flatnonzero(query_lens == 1)
        _, sizes = np.frexp(inputs.context_lens[decodes])  # like lengths: those between the same powers of two
        groups.extend(self._decode_group(inputs, decodes[sizes == size]) for size in np.unique(sizes))
        return SdpaMeta(inputs.slots, tuple(groups))

    def forward(
        self,
        layer: int,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        meta: SdpaMeta,
        options: AttentionOptions,
    ) -> torch.Tensor:
        """See AttentionBackend."""
        meta = meta.on(query.device)
        self._cache.write(layer, meta.slots, key, value)
        return self.attend(layer, query, meta, options)

    def attend(self, layer: int, query: torch.Tensor, meta: SdpaMeta, options: AttentionOptions) -> torch.Tensor:
        """See AttentionBackend."""
        meta = meta.on(query.device)
        output = query.new_empty(*query.shape[:2], self._cache.values[layer].shape[-1])
        for group in meta.groups:
            output[group.tokens] = self._attend_group(layer, query[group.tokens], group, options)
        return output

    def _attend_group(self, layer: int, query: torch.Tensor, group: _Group, options: AttentionOptions) -> torch.Tensor:
        keys = self._gather(self._cache.keys[layer], group)
        values = self._gather(self._cache.values[layer], group)
        num_rows, num_queries = group.query_positions.shape
        num_kv_heads = keys.shape[1]
        heads_per_kv = query.shape[1] // num_kv_heads
        # [B * Q, H, D] -> [B, KV heads, heads_per_kv * Q, D]
        query = query.view(num_rows, num_queries, num_kv_heads, heads_per_kv, -1)
        query = query.permute(0, 2, 3, 1, 4).flatten(2, 3)
        mask = group.mask(options.sliding_window, heads_per_kv, query.dtype)
        if options.softcap is None:
            output = scaled_dot_product_attention(query, keys, values, mask, scale=options.scaling)
        else:
            output = _softcapped_attention(query, keys, values, mask, options.scaling, options.softcap)
        output = output.view(num_rows, num_kv_heads, heads_per_kv, num_queries, -1)
        return output.permute(0, 3, 1, 2, 4).reshape(num_rows * num_queries, num_kv_heads * heads_per_kv, -1)

    def _gather(self, cache: torch.Tensor, group: _Group) -> torch.Tensor:
        """[num_blocks, block_size, heads, dim] -> [B, heads, K, dim]."""
        num_rows, num_keys = len(group.query_positions), len(group.key_positions)
        return cache.index_select(0, group.blocks).view(num_rows, num_keys, *cache.shape[2:]).transpose(1, 2)

    def _prefill_groups(self, inputs: BatchInputs, row: np.intp) -> list[_Group]:
        start, end = inputs.query_starts[row : row + 2].tolist()
        own_blocks = inputs.block_tables[inputs.block_starts[row] : inputs.block_starts[row + 1]]
        groups = []
        for first in range(start, end, _MAX_QUERIES):
            last = min(first + _MAX_QUERIES, end)
            context_len = int(inputs.context_lens[row]) - (end - last)
            table = own_blocks[: -(-context_len // self._cache.block_size)]
            groups.append(self._group(inputs, slice(first, last), table[None]))
        return groups

    def _decode_group(self, inputs: BatchInputs, rows: npt.NDArray[np.intp]) -> _Group:
        starts, ends = inputs.block_starts[rows, None], inputs.block_starts[rows + 1, None]
        places = starts + np.arange((ends - starts).max())
        # A shorter row is padded with the block that its table ends in, which is masked like any other.
        tables = inputs.block_tables[np.minimum(places, ends - 1)]
        tokens = torch.from_numpy(inputs.query_starts[rows].astype(np.int64))
        return self._group(inputs, tokens.to(inputs.slots.device), tables)

    def _group(self, inputs: BatchInputs, tokens: torch.Tensor | slice, tables: Int32Array) -> _Group:
        device = inputs.slots.device
        return _Group(
            tokens=tokens,
            blocks=torch.from_numpy(tables.reshape(-1).astype(np.int64)).to(device),
            query_positions=inputs.position_ids[tokens].view(len(tables), -1),
            key_positions=torch.arange(tables.shape[1] * self._cache.block_size, device=device),
        )


def _softcapped_attention(
    query: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, mask: torch.Tensor, scaling: float, softcap: float
) -> torch.Tensor:
    scores = (query.float() @ keys.float().transpose(2, 3)) * scaling
    scores = softcap * torch.tanh(scores / softcap) + mask.float()
    return torch.softmax(scores, dim=-1).to(values.dtype) @ values
