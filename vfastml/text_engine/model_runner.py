"""Runs a scheduled batch: inputs, forward pass, sampling."""

from __future__ import annotations

import torch

from vfastml.engine.dispatch_replies import Limits
from vfastml.text_engine.batch_inputs import build_batch_inputs
from vfastml.text_engine.decoders.decoder import Decoder
from vfastml.text_engine.kv_cache import KVCache
from vfastml.text_engine.sampler import Sampler
from vfastml.text_engine.sampling import SampledToken
from vfastml.text_engine.scheduler import ScheduledBatch


class ModelRunner:
    """Owns the KV cache of one decoder."""

    def __init__(self, decoder: Decoder, limits: Limits, end_token_ids: tuple[int, ...]) -> None:
        self._device = decoder.device
        self._cache = KVCache(decoder.kv_shapes, limits.num_blocks, limits.block_size, decoder.dtype, decoder.device)
        self._forward = decoder.on(self._cache)
        self._sampler = Sampler(end_token_ids)

    @torch.inference_mode()
    def run(self, batch: ScheduledBatch) -> list[list[SampledToken]]:
        """For each row that samples, in order: a token for the sequence and one for each of its forks."""
        self._cache.copy_blocks(batch.copies)
        inputs = build_batch_inputs(batch, self._cache.block_size, self._device)
        logits = self._forward(inputs)
        rows = [row for row in batch.rows if row.samples]
        return self._sampler.sample_rows(logits, rows) if rows else []

    def parts(self) -> dict[str, tuple[object, str]]:
        """What `run` consists of: by name, the object and its method that does it."""
        return {"forward": (self, "_forward"), "sample": (self._sampler, "sample_rows")}
