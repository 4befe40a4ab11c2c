"""From a scheduled batch to the tensors of one packed forward pass."""

from __future__ import annotations

from array import array
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from vfastml.text_engine.host_copies import to_device
from vfastml.text_engine.scheduler import ScheduledBatch
from vfastml.text_engine.sequence import Sequence

Int32Array = npt.NDArray[np.int32]
Int64Array = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class PromptPiece:
    """A part of a prompt whose own log probabilities are asked for: the logits of one token say how likely the next
    was."""

    sequence: Sequence
    start: int
    """The first token that is rated."""
    stop: int
    first_logits: int
    """Which of the step's logits rate it; the next ones rate those after it."""


@dataclass(frozen=True, slots=True)
class BatchInputs:
    """R rows of together T tokens, one after the other without padding.

    The tensors are on the device; the arrays stay on the host and are contiguous.
    """

    input_ids: torch.Tensor
    """[T] int64. -1 - n: the token that was sampled as number n of the step before, and that only the device knows."""
    position_ids: torch.Tensor
    """[T] int64: each token's place in its own sequence."""
    slots: torch.Tensor
    """[T] int64: where the KV of each token goes, block * block_size + offset."""
    logits_index: torch.Tensor
    """[S] int64, ascending, none twice: the last token of each row that samples, and those that rate the tokens of
    `prompt_pieces`."""
    query_starts: Int32Array
    """[R + 1]: row r's tokens are query_starts[r]:query_starts[r + 1]. The first is 0, the last T."""
    context_lens: Int32Array
    """[R]: tokens of each row with KV after this step, its own included."""
    block_tables: Int32Array
    """The blocks of all rows, one row after the other; of each as many as its context needs."""
    block_starts: Int32Array
    """[R + 1]: row r's blocks are block_tables[block_starts[r]:block_starts[r + 1]]."""
    prompt_pieces: tuple[PromptPiece, ...] = ()
    """In the order of their logits."""
    sampling_logits: tuple[int, ...] = ()
    """Which of the logits are of the rows that sample, in order; only where there are prompt pieces: else all are."""


@dataclass(frozen=True, slots=True)
class PackedBatch:
    """A step's inputs on the host; the fields are those of BatchInputs."""

    input_ids: Int64Array
    position_ids: Int64Array
    slots: Int64Array
    logits_index: Int64Array
    query_starts: Int32Array
    context_lens: Int32Array
    block_tables: Int32Array
    block_starts: Int32Array
    prompt_pieces: tuple[PromptPiece, ...]
    sampling_logits: tuple[int, ...]

    def on(self, device: torch.device) -> BatchInputs:
        """One copy goes to the device, which may still be computing other steps."""
        parts = (self.input_ids, self.position_ids, self.slots, self.logits_index)
        on_device = to_device(np.concatenate(parts), device)
        input_ids, position_ids, slots, logits_index = torch.split(on_device, [len(part) for part in parts])
        return BatchInputs(
            input_ids=input_ids,
            position_ids=position_ids,
            slots=slots,
            logits_index=logits_index,
            query_starts=self.query_starts,
            context_lens=self.context_lens,
            block_tables=self.block_tables,
            block_starts=self.block_starts,
            prompt_pieces=self.prompt_pieces,
            sampling_logits=self.sampling_logits,
        )


def build_batch_inputs(batch: ScheduledBatch, block_size: int, device: torch.device) -> BatchInputs:
    """The packed rows on the device."""
    return pack_batch(batch, block_size).on(device)


def pack_batch(batch: ScheduledBatch, block_size: int) -> PackedBatch:
    """Packs the rows in their order. Takes only each row's new tokens and its block table as a whole: no work grows
    with what a sequence has generated. numpy is called for all rows together."""
    tokens: list[int] = []
    logits_tokens: list[int] = []
    tables: list[array[int]] = []
    token_ends, context_lens, block_ends = [0], [], [0]
    pieces: list[PromptPiece] = []
    sampling_logits: list[int] = []
    for row in batch.rows:
        sequence = row.sequence
        start, table = sequence.num_computed, sequence.block_table
        end = start + row.num_tokens
        tokens += sequence.tokens[start:end]
        if end > len(sequence.tokens):
            tokens.append(-1 - sequence.pending_row)
        tables.append(table)
        token_ends.append(len(tokens))
        context_lens.append(end)
        block_ends.append(block_ends[-1] + len(table))
        if sequence.prompt_scores is not None and start + 1 < sequence.num_prompt_tokens:
            stop = min(end + 1, sequence.num_prompt_tokens)
            pieces.append(PromptPiece(sequence, start + 1, stop, len(logits_tokens)))
            first = len(tokens) - row.num_tokens
            logits_tokens += range(first, first + stop - start - 1)
        if row.samples:
            sampling_logits.append(len(logits_tokens))
            logits_tokens.append(len(tokens) - 1)

    query_starts, contexts, block_starts = map(_int32, (token_ends, context_lens, block_ends))
    block_tables = np.frombuffer(bytearray().join(tables), dtype=np.int32)
    lengths = query_starts[1:] - query_starts[:-1]
    # Counted from the back: the last token of a row is the last of its context.
    positions = (contexts - query_starts[1:]).repeat(lengths) + np.arange(len(tokens))
    blocks = block_tables[block_starts[:-1].repeat(lengths) + positions // block_size].astype(np.int64)
    places = blocks * block_size + positions % block_size
    return PackedBatch(
        input_ids=np.array(tokens, dtype=np.int64),
        position_ids=positions,
        slots=places,
        logits_index=np.array(logits_tokens, dtype=np.int64),
        query_starts=query_starts,
        context_lens=contexts,
        block_tables=block_tables,
        block_starts=block_starts,
        prompt_pieces=tuple(pieces),
        sampling_logits=tuple(sampling_logits) if pieces else (),
    )


def _int32(numbers: list[int]) -> Int32Array:
    return np.array(numbers, dtype=np.int32)
