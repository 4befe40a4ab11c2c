"""Decode steps as CUDA graphs: one for each of some numbers of rows, from the newest tokens to the next ones."""

from __future__ import annotations

import logging
import time
from bisect import bisect_left
from collections.abc import Callable, Sequence
from typing import Protocol, TypeGuard

import torch

from vfastml.text_engine.attention.triton_paged import TritonAttention
from vfastml.text_engine.batch_inputs import PackedBatch
from vfastml.text_engine.decoders.decoder import ForwardPass
from vfastml.text_engine.decoders.device_step import DeviceStep
from vfastml.text_engine.device_sampler import DeviceSampler
from vfastml.text_engine.draw import Draw
from vfastml.text_engine.gpu.cuda_capture import Capture
from vfastml.text_engine.gpu.decode_buffers import DecodeBuffers

logger = logging.getLogger(__name__)

_SMALL = (1, 2, 4)
_FINE, _FINE_UP_TO, _COARSE = 8, 256, 16
"""Numbers of rows that have a graph: a few small ones, then every eighth, and beyond 256 every sixteenth. A step takes
the next larger one, and what it computes for nobody costs next to nothing at these distances."""


class CapturableForward(Protocol):
    """A forward pass that a graph can hold."""

    backend: TritonAttention

    def run(self, step: DeviceStep) -> torch.Tensor:
        """Logits [S, vocab_size]; reads nothing on the host."""


def is_capturable(forward: ForwardPass) -> TypeGuard[CapturableForward]:
    """Whether a graph can hold it: our own decoder, over our own attention kernels."""
    return isinstance(getattr(forward, "backend", None), TritonAttention) and hasattr(forward, "run")


class DecodeGraphs:
    """Replays whole decode steps: known tokens looked up, the model, sampling. `tokens` [max_rows] int64 on the device
    has the tokens that were sampled last, and gets the new ones; `logits` [max_rows, vocab_size] gets what they were
    chosen from, for rows that are sampled otherwise."""

    def __init__(
        self,
        forward: CapturableForward,
        sampler: DeviceSampler,
        tokens: torch.Tensor,
        logits: torch.Tensor,
        max_blocks: int,
        capture: Capture,
    ) -> None:
        self.logits = logits
        self._forward = forward
        self._sampler = sampler
        self._tokens = tokens
        self._buffers = DecodeBuffers(len(tokens), max_blocks, tokens.device)
        self._capture = capture
        self._sizes: list[int] = []
        self._replays: dict[int, Callable[[], None]] = {}

    def capture(self) -> None:
        """Records all graphs, the largest first, so that the others fit into its memory. Takes seconds for a large
        model. Raises what a step or its capture raises."""
        began = time.monotonic()
        sizes = graph_sizes(self._buffers.max_rows)
        for size in reversed(sizes):
            self._replays[size] = self._capture(self._step_of(size))
        self._sizes = sizes
        logger.info("%d CUDA graphs of up to %d rows: %.1f s", len(sizes), sizes[-1], time.monotonic() - began)

    def fits(self, packed: PackedBatch) -> bool:
        """Whether there is a graph for this step; its rows must have one token each."""
        num_rows, num_blocks = len(packed.context_lens), len(packed.block_tables)
        return bool(self._sizes) and num_rows <= self._sizes[-1] and num_blocks <= self._buffers.max_blocks

    def launch(self, packed: PackedBatch, draws: Sequence[Draw]) -> None:
        """Starts a step that fits, with a draw for each row. Its tokens will be the first of `tokens`, and its logits
        those of `logits`."""
        self._buffers.fill(packed, draws)
        self._replays[self._sizes[bisect_left(self._sizes, len(packed.context_lens))]]()

    def _step_of(self, size: int) -> Callable[[], None]:
        buffers = self._buffers
        rows = buffers.sampling.first(size)
        meta = self._forward.backend.decode_meta(
            buffers.slots[:size],
            buffers.query_starts[: size + 1],
            buffers.context_lens[:size],
            buffers.block_starts[: size + 1],
            buffers.block_tables,
        )

        def step() -> None:
            input_ids = known_tokens(buffers.input_ids[:size], self._tokens)
            logits = self._forward.run(
                DeviceStep(input_ids, buffers.position_ids[:size], buffers.slots[:size], None, meta)
            )
            self._sampler.sample(logits, rows, out=self._tokens[:size])
            self.logits[:size].copy_(logits)

        return step


def graph_sizes(max_rows: int) -> list[int]:
    """Ascending; the last is `max_rows`."""
    sizes = {*_SMALL, *range(_FINE, _FINE_UP_TO + 1, _FINE), *range(_FINE_UP_TO, max_rows, _COARSE)}
    return sorted({size for size in sizes if size < max_rows} | {max_rows})


def known_tokens(input_ids: torch.Tensor, sampled: torch.Tensor) -> torch.Tensor:
    """`input_ids` [T] with the token `sampled[n]` in the place of each -1 - n."""
    return torch.where(input_ids < 0, sampled[(-1 - input_ids).clamp_(min=0)], input_ids)
