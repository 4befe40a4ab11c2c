"""Runs a decoder over given texts as the engine would: several rows, in chunks, prompts beside single tokens."""

from __future__ import annotations

import torch

from vfastml.text_engine.batch_inputs import build_batch_inputs
from vfastml.text_engine.block_manager import BlockManager
from vfastml.text_engine.decoders.decoder import Decoder
from vfastml.text_engine.kv_cache import KVCache
from vfastml.text_engine.sampling import Sampling
from vfastml.text_engine.scheduler import Scheduler
from vfastml.text_engine.sequence import Sequence

BLOCK = 4
Text = tuple[list[int], list[int]]
"""A prompt, and the tokens that are taken as generated."""


@torch.inference_mode()
def forced_logits(decoder: Decoder, texts: list[Text], *, budget: int, max_num_seqs: int = 64) -> list[torch.Tensor]:
    """For each text, logits [len(output), vocab_size] that each token of its output was to be chosen from. A further
    text begins whenever a seat is free, so that prompts run beside single tokens."""
    blocks = BlockManager(num_blocks=256, block_size=BLOCK, enable_prefix_caching=False)
    scheduler = Scheduler(blocks, max_num_seqs=max_num_seqs, max_num_batched_tokens=budget)
    forward = decoder.on(KVCache(decoder.kv_shapes, blocks.num_blocks, BLOCK, decoder.dtype, decoder.device))
    for number, (prompt, _) in enumerate(texts):
        scheduler.add(Sequence(str(number), list(prompt), Sampling(max_tokens=99), arrival=number))
    logits: list[list[torch.Tensor]] = [[] for _ in texts]
    while any(len(rows) < len(output) for rows, (_, output) in zip(logits, texts, strict=True)):
        batch = scheduler.schedule()
        found = forward(build_batch_inputs(batch, BLOCK, decoder.device)).clone()
        scheduler.commit(batch)
        sampling = [row.sequence for row in batch.rows if row.samples]
        assert found.shape == (len(sampling), decoder.vocab_size)
        assert found.dtype == torch.float32
        for sequence, row in zip(sampling, found, strict=True):
            number = int(sequence.request_id)
            output = texts[number][1]
            logits[number].append(row)
            if sequence.num_generated + 1 < len(output):
                sequence.tokens.append(output[sequence.num_generated])
            else:
                scheduler.remove(sequence)
    return [torch.stack(rows) for rows in logits]


def mixed_texts() -> list[Text]:
    """Five of them, one prompt of a single token, some longer than any window of the tests."""
    generator = torch.Generator().manual_seed(3)

    def words(count: int) -> list[int]:
        return torch.randint(256, (count,), generator=generator).tolist()

    return [(words(length), words(count)) for length, count in ((29, 12), (1, 30), (7, 5), (40, 1), (12, 20))]
