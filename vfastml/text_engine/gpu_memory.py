"""What this process may take of a GPU, and how much of that is left for the KV cache. Only arithmetic: `card_memory`
(cuda_memory.py) asks the card."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from vfastml.errors import InvalidRequestError

CONTEXT_BYTES = 600 << 20
"""What CUDA and its libraries take of a card for a process, outside of torch's own account: an estimate."""
GRAPHS_BYTES = 256 << 20
"""For the recorded steps themselves, beside the memory that they compute in: an estimate."""
DEFAULT_SHARE = 0.85
"""Of what is free, where nothing is asked for: others may use the card too."""
_SMALLER = "make steps smaller with --max-num-batched-tokens and --max-num-seqs"


@dataclass(frozen=True, slots=True)
class CardMemory:
    """One GPU once the weights are on it, in bytes."""

    total: int
    free: int
    """Of all processes together."""
    reserved: int
    """By torch in this process: the weights, mostly."""


@dataclass(frozen=True, slots=True)
class StepMemory:
    """What steps take beside weights and KV cache, in bytes."""

    step: int
    graphs: int
    """Recorded steps."""
    scratch: float = 0.0
    """What the attention copies out of the KV cache, as a share of that."""


@dataclass(frozen=True, slots=True)
class MemoryPlan:
    """How the memory of one GPU is used."""

    kv_cache: int
    """In bytes."""
    explanation: str
    """For the log."""


def plan_memory(card: CardMemory, steps: StepMemory, asked: float | None, wanted: int | None, most: int) -> MemoryPlan:
    """`asked` is EngineConfig.gpu_memory; `wanted` the bytes that are asked for the KV cache, and `most` those that it
    can be filled with. Raises InvalidRequestError, with the numbers, for what does not fit."""
    if asked is None:
        return _by_what_is_free(card, steps, wanted, most)
    limit = limit_bytes(asked, card.total)
    flag = f"--gpu-memory of {_gib(limit)}"
    _require(limit <= card.total, f"{flag} is more than the GPU has, {_gib(card.total)}.")
    parts = f"weights {_gib(card.reserved)}, CUDA {_gib(CONTEXT_BYTES)}, {_told(steps)}"
    left = _for_cache(limit - card.reserved - CONTEXT_BYTES, steps)
    _require(left > 0, f"{flag} leaves nothing for the KV cache ({parts}): give more, or {_SMALLER}.")
    _require(
        wanted is None or wanted <= left,
        f"{flag} leaves {_gib(left)} for the KV cache ({parts}), less than --kv-cache-memory: {_gib(wanted or 0)}.",
    )
    cache = min(left if wanted is None else wanted, most)
    _require(
        cache <= _for_cache(card.free, steps),
        f"{flag} has {_gib(cache)} for the KV cache ({parts}), but of the GPU's {_gib(card.total)} only "
        f"{_gib(card.free)} are free: others use it.",
    )
    return MemoryPlan(cache, f"{flag}: {parts}, KV cache {_gib(cache)}")


def limit_bytes(asked: float, total: int) -> int:
    """Up to 1 it is a share of the card, else it is bytes."""
    return int(asked * total) if asked <= 1 else int(asked)


def check_gpu_memory(asked: float | None, device: torch.device) -> None:
    """Raises InvalidRequestError for no amount of memory, and for a device that has none of its own."""
    if asked is None:
        return
    _require(0 < asked < math.inf, "--gpu-memory must be more than zero.")
    _require(
        device.type == "cuda",
        f"--gpu-memory is for a GPU, and this model runs on {device.type}: leave it out; --kv-cache-memory bounds the "
        "KV cache there.",
    )


def _by_what_is_free(card: CardMemory, steps: StepMemory, wanted: int | None, most: int) -> MemoryPlan:
    has = f"of {_gib(card.total)} there are {_gib(card.free)} free"
    _require(wanted is None or wanted <= card.free, f"--kv-cache-memory is {_gib(wanted or 0)}, but {has}.")
    left = _for_cache(int(card.free * DEFAULT_SHARE), steps)
    _require(
        wanted is not None or left > 0,
        f"There is no room for a KV cache: {has}, and a step needs memory too ({_told(steps)}): {_SMALLER}.",
    )
    cache = min(left if wanted is None else wanted, most)
    return MemoryPlan(cache, f"{has}: {_told(steps)}, KV cache {_gib(cache)}")


def _for_cache(num_bytes: int, steps: StepMemory) -> int:
    return max(0, int((num_bytes - steps.step - steps.graphs) / (1 + steps.scratch)))


def _told(steps: StepMemory) -> str:
    return f"a step {_gib(steps.step)}, recorded steps {_gib(steps.graphs)}"


def _gib(num_bytes: int) -> str:
    return f"{num_bytes / (1 << 30):.2f} GiB"


def _require(holds: bool, message: str) -> None:
    if not holds:
        raise InvalidRequestError(message)
