"""Tokens from logits: our kernels beside the same in torch."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch

from benchmarks.gpu.kernel_cases import KernelCase, KernelSizes
from vfastml.text_engine.triton_kernels.sampling import sample_tokens

FAMILY = "sampling"
_TOP_K, _TOP_P = 50, 0.9


def sampling_cases(sizes: KernelSizes) -> Iterator[KernelCase]:
    """Greedy rows, rows that draw from all tokens, and rows that draw from a few of them."""
    kinds: dict[str, tuple[float, int, float]] = {
        "greedy": (0.0, 0, 1.0),
        "temperature": (1.0, 0, 1.0),
        f"top_k {_TOP_K}, top_p {_TOP_P}": (1.0, _TOP_K, _TOP_P),
    }
    for kernel, (temperature, top_k, top_p) in kinds.items():
        for rows in sizes.rows:
            yield _case(sizes, kernel, rows, temperature, top_k, top_p)


def _case(sizes: KernelSizes, kernel: str, rows: int, temperature: float, top_k: int, top_p: float) -> KernelCase:
    logits = 5 * sizes.random(rows, sizes.shape.vocab, dtype=torch.float32)
    alike = torch.zeros(rows, device=sizes.device)
    seeds = torch.arange(rows, device=sizes.device)
    arguments = (alike + temperature, (alike + top_k).int(), alike + top_p, alike - torch.inf, seeds)
    out = torch.empty_like(seeds)
    return KernelCase(
        family=FAMILY,
        kernel=kernel,
        rows=rows,
        run=lambda: sample_tokens(logits, *arguments, out),
        others={"torch": _in_torch(logits, temperature, top_k)},
        num_bytes=logits.nbytes,
        per_step=int(kernel == "greedy"),
    )


def _in_torch(logits: torch.Tensor, temperature: float, top_k: int) -> Callable[[], object]:
    """What is usual: argmax, or softmax and multinomial, behind a sort where tokens are cut off."""
    if temperature == 0:
        return lambda: logits.argmax(-1)
    if top_k == 0:
        return lambda: torch.multinomial(torch.softmax(logits / temperature, -1), 1)

    def cut() -> object:
        ordered, tokens = logits.sort(-1, descending=True)
        weights = torch.softmax(ordered / temperature, -1)
        weights[:, top_k:] = 0.0
        weights[(weights.cumsum(-1) - weights) > _TOP_P] = 0.0
        return tokens.gather(-1, torch.multinomial(weights, 1))

    return cut
