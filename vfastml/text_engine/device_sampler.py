"""From logits to tokens without leaving the device: for rows of which nothing but a token is asked, and whose logits
are chosen from as they are (`Sequence.is_plain`). All others are for sampler.py.

The token is drawn otherwise than there, from the same seed: the largest of logits / temperature + noise (Gumbel-max).
It depends on nothing but its own row, bit for bit.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from vfastml.text_engine.draw import Draw
from vfastml.text_engine.draw_bits import draw_bits
from vfastml.text_engine.host_copies import to_device
from vfastml.text_engine.triton_kernels.sampling import sample_tokens

_WORDS = 3
"""Of 8 bytes, that a row takes."""
_MOST_TOP_K = 2**31 - 1


@dataclass(frozen=True, slots=True)
class SamplingRows:
    """What S rows ask for: contiguous tensors on the device.

    They are views of one buffer of `num_words` int64: first the seeds, then temperature and top_p, then log_min_p and
    top_k, S of each. `fill` writes a buffer on the host; `view` sees its copy on the device, which may be a static one
    that a CUDA graph reads.
    """

    seeds: torch.Tensor
    """[S] int64, not negative."""
    temperature: torch.Tensor
    """[S] float32; 0: the most probable token."""
    top_p: torch.Tensor
    """[S] float32; 1: all."""
    log_min_p: torch.Tensor
    """[S] float32: logarithm of min_p; minus infinity: all."""
    top_k: torch.Tensor
    """[S] int32; 0: all."""

    def __len__(self) -> int:
        return len(self.seeds)

    @staticmethod
    def num_words(num_rows: int) -> int:
        """Of the buffer, in int64."""
        return _WORDS * num_rows

    @classmethod
    def of(cls, draws: Sequence[Draw], device: torch.device) -> SamplingRows:
        """Of the draws, in their order, by one copy."""
        buffer = np.empty(cls.num_words(len(draws)), dtype=np.int64)
        cls.fill(buffer, draws)
        return cls.view(to_device(buffer, device))

    @classmethod
    def view(cls, buffer: torch.Tensor) -> SamplingRows:
        """Of a contiguous buffer [num_words(S)] int64, for all of its S rows."""
        seeds, middle, last = buffer.view(_WORDS, -1)
        temperature, top_p = middle.view(torch.float32).view(2, -1)
        log_min_p = last.view(torch.float32).view(2, -1)[0]
        top_k = last.view(torch.int32).view(2, -1)[1]
        return cls(seeds, temperature, top_p, log_min_p, top_k)

    @staticmethod
    def fill(buffer: npt.NDArray[np.int64], draws: Sequence[Draw]) -> None:
        """Writes the draws into the first rows of a contiguous buffer [num_words(S)]; the others become greedy ones.
        `Draw.row` is not looked at."""
        count, asked = len(draws), [draw.sampling for draw in draws]
        seeds, middle, last = buffer.reshape(_WORDS, -1)
        temperature, top_p = middle.view(np.float32).reshape(2, -1)
        log_min_p = last.view(np.float32).reshape(2, -1)[0]
        top_k = last.view(np.int32).reshape(2, -1)[1]
        temperature[count:] = 0.0
        seeds[:count] = (draw_bits(draws) >> np.uint64(1)).view(np.int64)
        temperature[:count] = [0.0 if sampling.greedy else sampling.temperature for sampling in asked]
        top_p[:count] = [sampling.top_p for sampling in asked]
        with np.errstate(divide="ignore"):
            log_min_p[:count] = np.log(np.array([sampling.min_p for sampling in asked], dtype=np.float64))
        top_k[:count] = [min(sampling.top_k, _MOST_TOP_K) for sampling in asked]

    def first(self, num_rows: int) -> SamplingRows:
        """So many of the rows, as views of the same buffer."""
        return SamplingRows(
            self.seeds[:num_rows],
            self.temperature[:num_rows],
            self.top_p[:num_rows],
            self.log_min_p[:num_rows],
            self.top_k[:num_rows],
        )


class DeviceSampler:
    """Chooses tokens on a device that Triton compiles for (`triton_kernels.availability`)."""

    def sample(self, logits: torch.Tensor, rows: SamplingRows, out: torch.Tensor | None = None) -> torch.Tensor:
        """One token for each row of `logits` [S, vocab_size] (float32, bfloat16 or float16), [S] int64 on their
        device, in `out` if it is given. Reads nothing back: it may be part of a CUDA graph, and rows that do not
        matter may hold anything."""
        tokens = torch.empty(len(rows), dtype=torch.int64, device=logits.device) if out is None else out
        sample_tokens(logits, rows.temperature, rows.top_k, rows.top_p, rows.log_min_p, rows.seeds, tokens)
        return tokens
