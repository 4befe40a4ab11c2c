"""What a GPU says about its memory, and the bound that torch keeps to there. Nothing else asks it."""

from __future__ import annotations

import torch

from vfastml.text_engine.gpu_memory import CONTEXT_BYTES, CardMemory, limit_bytes


def card_memory(device: torch.device) -> CardMemory:
    """As it is now; what earlier steps have left unused goes back first."""
    torch.cuda.empty_cache()
    free, total = torch.cuda.mem_get_info(device)
    return CardMemory(total=int(total), free=int(free), reserved=int(torch.cuda.memory_reserved(device)))


def keep_to(asked: float, device: torch.device) -> None:
    """From now on a step for which EngineConfig.gpu_memory has no room fails for want of memory, as if the card had no
    more: then it is made smaller, and the neighbours on the card are spared."""
    _, total = torch.cuda.mem_get_info(device)
    share = (limit_bytes(asked, total) - CONTEXT_BYTES) / total
    torch.cuda.set_per_process_memory_fraction(max(0.0, min(1.0, share)), device)
