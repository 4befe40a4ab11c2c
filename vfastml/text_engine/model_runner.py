"""Runs a scheduled batch: inputs, forward pass, sampling."""

from __future__ import annotations

import torch

from vfastml.engine.dispatch_replies import Limits
from vfastml.text_engine.attention.interface import AttentionStep
from vfastml.text_engine.attention.sdpa import SdpaAttention
from vfastml.text_engine.batch_inputs import build_batch_inputs
from vfastml.text_engine.decoders.hf_decoder import HFDecoder
from vfastml.text_engine.kv_cache import KVCache
from vfastml.text_engine.sampler import Draw, Sampler
from vfastml.text_engine.sampling import SampledToken
from vfastml.text_engine.scheduler import ScheduledBatch, ScheduledRow


class ModelRunner:
    """Owns the KV cache of one decoder."""

    def __init__(self, decoder: HFDecoder, limits: Limits, end_token_ids: tuple[int, ...]) -> None:
        self._decoder = decoder
        self._cache = KVCache(decoder.kv_shapes, limits.num_blocks, limits.block_size, decoder.dtype, decoder.device)
        self._attention = SdpaAttention(self._cache)
        self._sampler = Sampler(end_token_ids)

    @torch.inference_mode()
    def run(self, batch: ScheduledBatch) -> list[list[SampledToken]]:
        """For each row that samples, in order: a token for the sequence and one for each of its forks."""
        self._cache.copy_blocks(batch.copies)
        inputs = build_batch_inputs(batch, self._cache.block_size, self._decoder.device)
        step = AttentionStep(self._attention, self._attention.prepare(inputs), len(inputs.input_ids))
        logits = self._decoder.forward(inputs, step)
        rows = [row for row in batch.rows if row.samples]
        if not rows:
            return []
        draws = [draw for number, row in enumerate(rows) for draw in _draws(number, row)]
        tokens = iter(self._sampler.sample(logits, draws))
        return [[next(tokens) for _ in range(1 + row.sequence.forks)] for row in rows]


def _draws(number: int, row: ScheduledRow) -> list[Draw]:
    sequence = row.sequence
    choices = range(sequence.index, sequence.index + 1 + sequence.forks)
    return [Draw(number, sequence.sampling, choice, sequence.num_generated, sequence.tokens) for choice in choices]
