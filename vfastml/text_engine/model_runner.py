"""Runs a scheduled batch: inputs, forward pass, sampling."""

from __future__ import annotations

import torch

from vfastml.engine.dispatch_replies import Limits
from vfastml.text_engine.batch_inputs import PromptPiece, build_batch_inputs
from vfastml.text_engine.constraints.row_masks import MaskFiller
from vfastml.text_engine.decoders.decoder import Decoder
from vfastml.text_engine.kv_cache import KVCache
from vfastml.text_engine.sampler import Sampler
from vfastml.text_engine.sampling import SampledToken
from vfastml.text_engine.scheduler import ScheduledBatch
from vfastml.text_engine.token_scores import prompt_scored


class ModelRunner:
    """Owns the KV cache of one decoder."""

    def __init__(self, decoder: Decoder, limits: Limits, end_token_ids: tuple[int, ...]) -> None:
        self._device = decoder.device
        self._cache = KVCache(decoder.kv_shapes, limits.num_blocks, limits.block_size, decoder.dtype, decoder.device)
        self._forward = decoder.on(self._cache)
        self._sampler = Sampler(end_token_ids)
        self._masks = MaskFiller(decoder.vocab_size)

    @torch.inference_mode()
    def run(self, batch: ScheduledBatch) -> list[list[SampledToken]]:
        """For each row that samples, in order: a token for the sequence and one for each of its forks. Prompts whose
        own log probabilities are asked for get theirs in `sequence.prompt_scores`, the same each time."""
        self._cache.copy_blocks(batch.copies)
        inputs = build_batch_inputs(batch, self._cache.block_size, self._device)
        rows = [row for row in batch.rows if row.samples]
        masks = self._masks.begin(rows)
        logits = self._forward(inputs)
        if inputs.prompt_pieces:
            rate_prompts(logits, inputs.prompt_pieces)
            logits = logits[list(inputs.sampling_logits)]
        return self._sampler.sample_rows(logits, rows, masks) if rows else []

    def parts(self) -> dict[str, tuple[object, str]]:
        """What `run` consists of: by name, the object and its method that does it."""
        return {"forward": (self, "_forward"), "sample": (self._sampler, "sample_rows")}


def rate_prompts(logits: torch.Tensor, pieces: tuple[PromptPiece, ...]) -> None:
    """Writes the log probabilities of the pieces' tokens into their sequences; `logits` [S, vocab_size] are all of the
    step's."""
    for piece in pieces:
        sequence, tokens = piece.sequence, piece.sequence.tokens[piece.start : piece.stop]
        assert sequence.prompt_scores is not None
        own = logits[piece.first_logits : piece.first_logits + len(tokens)]
        rated = prompt_scored(own, tokens, sequence.sampling.prompt_logprobs or 0)
        sequence.prompt_scores[piece.start : piece.stop] = rated
