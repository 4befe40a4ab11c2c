"""Does a decoder over the paged cache compute what the model itself computes? Asked once, when a model is loaded."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

import torch

from vfastml.errors import UnsupportedError
from vfastml.text_engine.batch_inputs import build_batch_inputs
from vfastml.text_engine.block_manager import BlockManager
from vfastml.text_engine.decoders.decoder import Decoder
from vfastml.text_engine.engine_config import BLOCK_SIZE
from vfastml.text_engine.kv_cache import KVCache
from vfastml.text_engine.sampling import Sampling
from vfastml.text_engine.scheduler import Scheduler
from vfastml.text_engine.sequence import Sequence

_BLOCK_SIZE = 4
"""In so small blocks short prompts lie in several. Where the attention reads only larger ones, prompts are longer."""
_LENGTHS = (3.25, 1.5)
"""Of the prompts, in blocks."""
_BUDGET = 2.5
"""In blocks: small enough that the prompts are computed in chunks, large enough that one step holds parts of both."""


@runtime_checkable
class _HasReference(Protocol):
    """A decoder whose model has an attention of its own beside ours."""

    def eager_logits(self, token_ids: torch.Tensor) -> torch.Tensor:
        """Logits [T, vocab_size] in float32 of one sequence [T]."""


@torch.inference_mode()
def check_decoder(decoder: Decoder) -> None:
    """Runs two short prompts, packed and in chunks, and compares with the model's own eager attention; with each prompt
    alone in one step where the decoder has no other attention.

    Raises UnsupportedError, which names the model and the reason, if an attention layer does not come to our hook, or
    if the logits differ by more than the rounding of the dtype, or of quantized weights.
    """
    size = _BLOCK_SIZE if decoder.block_size == BLOCK_SIZE else decoder.block_size
    lengths = [int(size * blocks) for blocks in _LENGTHS]
    prompts = [[(7 * place + length) % decoder.vocab_size for place in range(length)] for length in lengths]
    packed = _paged_logits(decoder, prompts, int(size * _BUDGET), size)
    for prompt, logits in zip(prompts, packed, strict=True):
        expected = _expected_logits(decoder, prompt, size)
        error = (logits - expected).norm() / expected.norm()
        if not error <= _tolerance(decoder):
            raise UnsupportedError(
                f"{decoder.name} computes something else with paged attention (error {float(error):.1%})."
            )


def _expected_logits(decoder: Decoder, prompt: list[int], block_size: int) -> torch.Tensor:
    if isinstance(decoder, _HasReference):
        return decoder.eager_logits(torch.tensor(prompt, device=decoder.device))[-1]
    return _paged_logits(decoder, [prompt], len(prompt), block_size)[0]


def _tolerance(decoder: Decoder) -> float:
    if decoder.is_quantized:  # 8-bit products round a row otherwise beside other rows: up to 7 % was seen
        return 0.2
    return 1e-3 if decoder.dtype == torch.float32 else 5e-2


def _paged_logits(decoder: Decoder, prompts: list[list[int]], budget: int, block_size: int) -> list[torch.Tensor]:
    num_blocks = sum(-(-(len(prompt) + 1) // block_size) for prompt in prompts) + 1
    blocks = BlockManager(num_blocks, block_size, enable_prefix_caching=False)
    scheduler = Scheduler(blocks, max_num_seqs=len(prompts), max_num_batched_tokens=budget)
    cache = KVCache(decoder.kv_shapes, num_blocks, block_size, decoder.dtype, decoder.device)
    forward = decoder.on(cache)
    for arrival, prompt in enumerate(prompts):
        scheduler.add(Sequence("check", prompt, Sampling(max_tokens=1), arrival=arrival))
    logits: list[torch.Tensor] = []
    while len(logits) < len(prompts):
        batch = scheduler.schedule()
        inputs = build_batch_inputs(batch, block_size, decoder.device)
        logits.extend(forward(inputs).clone())
        scheduler.commit(batch)
        for row in batch.rows:
            if row.samples:
                scheduler.remove(row.sequence)
    return logits
