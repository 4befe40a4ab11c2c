"""Attention over the paged cache by our own Triton kernels: for GPUs.

Rows of one token and rows of several are two launches, each with tiles of its own kind; a step that has only one kind
makes only that launch. So a decode row with a long context is split between programs (split_kv.py) in a mixed step,
too, and does not keep the step waiting in a single one.
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import dataclass, field

import numpy as np
import torch

from vfastml.text_engine.attention.interface import AttentionOptions
from vfastml.text_engine.batch_inputs import BatchInputs
from vfastml.text_engine.host_copies import to_device
from vfastml.text_engine.kv_cache import KVCache
from vfastml.text_engine.triton_kernels.kv_write import write_kv
from vfastml.text_engine.triton_kernels.launch_parameters import num_multiprocessors
from vfastml.text_engine.triton_kernels.paged_attention import prefill_attention
from vfastml.text_engine.triton_kernels.paged_rows import PagedRows
from vfastml.text_engine.triton_kernels.split_kv import decode_attention, num_splits_for


@dataclass(frozen=True, slots=True, kw_only=True)
class TritonMeta(PagedRows):
    """One step on the device, and the few numbers that the launches need on the host."""

    slots: torch.Tensor
    """[T] int64; -1: padding, which is not written."""
    max_query_len: int
    num_decodes: int
    """Rows of one token."""
    num_splits: int
    """Of the contexts of those rows: by how many they are, never by how long their contexts are."""
    elsewhere: dict[torch.device, TritonMeta] = field(default_factory=dict)
    """On the other devices of a model that is spread over several."""

    def on(self, device: torch.device) -> TritonMeta:
        """The same where a layer computes; moved there once in a step."""
        if device == self.slots.device:
            return self
        if device not in self.elsewhere:
            self.elsewhere[device] = TritonMeta(
                query_starts=self.query_starts.to(device),
                context_lens=self.context_lens.to(device),
                block_starts=self.block_starts.to(device),
                block_tables=self.block_tables.to(device),
                num_rows=self.num_rows,
                slots=self.slots.to(device),
                max_query_len=self.max_query_len,
                num_decodes=self.num_decodes,
                num_splits=self.num_splits,
            )
        return self.elsewhere[device]


class TritonAttention:
    """AttentionBackend on a KVCache whose layers lie on GPUs, or in Triton's interpreter on a CPU."""

    name = "triton"

    def __init__(self, cache: KVCache) -> None:
        self._cache = cache

    def prepare(self, inputs: BatchInputs) -> TritonMeta:
        """See AttentionBackend. One copy goes to the device."""
        parts = (inputs.query_starts, inputs.context_lens, inputs.block_starts, inputs.block_tables)
        device = inputs.slots.device
        arrays = torch.split(to_device(np.concatenate(parts), device), [len(part) for part in parts])
        query_lens = np.diff(inputs.query_starts)
        num_decodes = int(np.count_nonzero(query_lens == 1))
        return TritonMeta(
            query_starts=arrays[0],
            context_lens=arrays[1],
            block_starts=arrays[2],
            block_tables=arrays[3],
            num_rows=len(query_lens),
            slots=inputs.slots,
            max_query_len=int(query_lens.max()),
            num_decodes=num_decodes,
            num_splits=self._num_splits(num_decodes, device),
        )

    def decode_meta(
        self,
        slots: torch.Tensor,
        query_starts: torch.Tensor,
        context_lens: torch.Tensor,
        block_starts: torch.Tensor,
        block_tables: torch.Tensor,
    ) -> TritonMeta:
        """Of steps of len(context_lens) rows with one token each, over tensors whose contents may change between the
        steps: for CUDA graphs. The tensors are as in TritonMeta; a row that pads such a step has a context of 0."""
        num_rows = len(context_lens)
        return TritonMeta(
            query_starts=query_starts,
            context_lens=context_lens,
            block_starts=block_starts,
            block_tables=block_tables,
            num_rows=num_rows,
            slots=slots,
            max_query_len=1,
            num_decodes=num_rows,
            num_splits=self._num_splits(num_rows, slots.device),
        )

    def forward(
        self,
        layer: int,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        meta: TritonMeta,
        options: AttentionOptions,
    ) -> torch.Tensor:
        """See AttentionBackend."""
        meta = meta.on(query.device)
        with _device_of(query):
            write_kv(self._cache.keys[layer], self._cache.values[layer], meta.slots, key, value)
        return self.attend(layer, query, meta, options)

    def attend(self, layer: int, query: torch.Tensor, meta: TritonMeta, options: AttentionOptions) -> torch.Tensor:
        """See AttentionBackend."""
        meta = meta.on(query.device)
        keys, values = self._cache.keys[layer], self._cache.values[layer]
        output = query.new_empty(*query.shape[:2], values.shape[-1])
        with _device_of(query):
            if meta.num_decodes < meta.num_rows:
                prefill_attention(output, query, keys, values, meta, options)
            if meta.num_decodes > 0:
                decode_attention(output, query, keys, values, meta, meta.num_splits, options)
        return output

    def _num_splits(self, num_decodes: int, device: torch.device) -> int:
        num_kv_heads = max(layer.shape[2] for layer in self._cache.keys)
        return num_splits_for(num_decodes, num_kv_heads, num_multiprocessors(device))


def _device_of(tensor: torch.Tensor) -> AbstractContextManager[None]:
    """Triton launches on the current device, which need not be the layer's."""
    return torch.cuda.device_of(tensor)  # type: ignore[no-untyped-call]
