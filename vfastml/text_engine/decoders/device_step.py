"""A step as it may be put into a CUDA graph: nothing of it has to be read on the host."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch


@dataclass(frozen=True, slots=True)
class DeviceStep:
    """T tokens on the device. Tokens that only fill up a graph have a negative slot: nothing is kept of them."""

    input_ids: torch.Tensor
    """[T] int64."""
    position_ids: torch.Tensor
    """[T] int64; zero for tokens that only fill up."""
    slots: torch.Tensor
    """[T] int64: where each token's KV goes, negative for nowhere."""
    logits_index: torch.Tensor | None
    """[S] int64: the tokens whose logits are wanted; None: all, in order."""
    attention: Any
    """What the attention backend made of the step."""
