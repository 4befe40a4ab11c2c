"""Runs scheduled batches on a device that computes by itself: a step is launched, and its tokens are fetched later."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import torch

from vfastml.engine.dispatch_replies import Limits
from vfastml.text_engine.batch_inputs import PackedBatch, pack_batch
from vfastml.text_engine.constraints.row_masks import MaskFiller, RowMasks
from vfastml.text_engine.decoders.decoder import Decoder
from vfastml.text_engine.device_sampler import DeviceSampler, SamplingRows
from vfastml.text_engine.draw import Draw
from vfastml.text_engine.gpu.decode_graphs import DecodeGraphs, known_tokens
from vfastml.text_engine.kv_cache import KVCache
from vfastml.text_engine.launched_step import InFlight
from vfastml.text_engine.model_runner import rate_prompts
from vfastml.text_engine.sampler import Sampler
from vfastml.text_engine.sampling import SampledToken
from vfastml.text_engine.scheduler import ScheduledBatch, ScheduledRow
from vfastml.text_engine.sequence import Sequence


class DeviceRunner:
    """Owns the KV cache of one decoder. Rows that run ahead (Sequence.runs_ahead) are sampled on the device, and
    the next step takes their tokens from there; the others by `Sampler`, which waits for their logits."""

    def __init__(self, decoder: Decoder, limits: Limits, end_token_ids: tuple[int, ...]) -> None:
        self._device = decoder.device
        self._cache = KVCache(decoder.kv_shapes, limits.num_blocks, limits.block_size, decoder.dtype, decoder.device)
        self.forward = decoder.on(self._cache)
        self.sampler = DeviceSampler()
        self.tokens = torch.zeros(limits.max_num_seqs, dtype=torch.int64, device=decoder.device)
        """[max_num_seqs]: those of the newest step, one for each row that samples. No host needs to know them for the
        next step to begin."""
        self._host_sampler = Sampler(end_token_ids)
        self._masks = MaskFiller(decoder.vocab_size)
        self._graphs: DecodeGraphs | None = None

    @property
    def has_graphs(self) -> bool:
        """Whether `use` was called."""
        return self._graphs is not None

    def use(self, graphs: DecodeGraphs) -> None:
        """From now on decode steps that fit are replayed. They must read and write `tokens`."""
        self._graphs = graphs

    def run(self, batch: ScheduledBatch) -> list[list[SampledToken]]:
        """See ModelRunner."""
        return self.launch(batch).result()

    @torch.inference_mode()
    def launch(self, batch: ScheduledBatch) -> InFlight:
        """Starts a step, of which at most max_num_seqs rows sample. A row may go on with a token that the step launched
        before it sampled: if all of that step's rows were plain."""
        with self._on_device():
            self._cache.copy_blocks(batch.copies)
            packed = pack_batch(batch, self._cache.block_size)
            others = [row for row in batch.rows if row.samples and not row.sequence.runs_ahead]
            masks = self._masks.begin(others)
            if self._graphs is not None and _is_decode(batch, packed) and self._graphs.fits(packed):
                self._graphs.launch(packed, next_draws(batch.sampling))
                logits = self._graphs.logits[: len(batch.rows)]
            else:
                logits = self._launch_eagerly(packed, batch.sampling, len(others))
            return self._fetched(len(batch.sampling), self._sampled_here(logits, batch.sampling, others, masks))

    def parts(self) -> dict[str, tuple[object, str]]:
        """What `launch` consists of: by name, the object and its method that does it."""
        return {"forward": (self, "forward"), "sample": (self.sampler, "sample")}

    def _on_device(self) -> AbstractContextManager[None]:
        """Triton launches on the current device, which is each thread's own, and there an event is recorded."""
        return torch.cuda.device(self._device) if self._device.type == "cuda" else nullcontext()

    def _launch_eagerly(self, packed: PackedBatch, sampling: list[Sequence], num_others: int) -> torch.Tensor:
        """Logits [S, vocab_size] of the rows that sample."""
        inputs = packed.on(self._device)
        if (packed.input_ids < 0).any():
            inputs = dataclasses.replace(inputs, input_ids=known_tokens(inputs.input_ids, self.tokens))
        logits = self.forward(inputs)
        if inputs.prompt_pieces:
            rate_prompts(logits, inputs.prompt_pieces)
            logits = logits[list(inputs.sampling_logits)]
        if num_others < len(sampling):
            rows = SamplingRows.of(next_draws(sampling), self._device)
            self.sampler.sample(logits, rows, out=self.tokens[: len(sampling)])
        return logits

    def _sampled_here(
        self, logits: torch.Tensor, sampling: list[Sequence], others: list[ScheduledRow], masks: RowMasks | None
    ) -> dict[int, list[SampledToken]]:
        """By their places among all that sample."""
        if not others:
            return {}
        places = [place for place, sequence in enumerate(sampling) if not sequence.runs_ahead]
        own = (logits if len(places) == len(sampling) else logits[places]).float()
        return dict(zip(places, self._host_sampler.sample_rows(own, others, masks), strict=True))

    def _fetched(self, num_rows: int, known: Mapping[int, list[SampledToken]]) -> InFlight:
        """The newest tokens begin their way to the host, before the next step writes over them."""
        tokens = self.tokens[:num_rows]
        if self._device.type != "cuda":
            return TokensInFlight(tokens.clone(), known, None)
        host = torch.empty(num_rows, dtype=torch.int64, pin_memory=True)
        host.copy_(tokens, non_blocking=True)
        arrival = torch.cuda.Event()  # type: ignore[no-untyped-call]
        arrival.record()
        return TokensInFlight(host, known, arrival)


@dataclass(frozen=True, slots=True)
class TokensInFlight:
    """The tokens of one step."""

    host: torch.Tensor
    """[S] int64, one for each row that samples: filled when `arrival` has come."""
    known: Mapping[int, list[SampledToken]]
    """What was sampled on the host instead, by the row."""
    arrival: torch.cuda.Event | None

    def result(self) -> list[list[SampledToken]]:
        """See InFlight."""
        if self.arrival is not None:
            self.arrival.synchronize()
        tokens = self.host.tolist()
        return [self.known.get(row) or [SampledToken(token)] for row, token in enumerate(tokens)]


def next_draws(sequences: list[Sequence]) -> list[Draw]:
    """Of the next token of each."""
    return [
        Draw(row, sequence.sampling, sequence.index, sequence.num_generated + sequence.num_pending)
        for row, sequence in enumerate(sequences)
    ]


def _is_decode(batch: ScheduledBatch, packed: PackedBatch) -> bool:
    """Each row has one token, and asks for the next."""
    return not packed.prompt_pieces and all(row.samples and row.num_tokens == 1 for row in batch.rows)
