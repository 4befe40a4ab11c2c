"""From host memory to a device, without waiting for what the device is computing."""

from __future__ import annotations

from typing import Any

import numpy.typing as npt
import torch


def to_device(array: npt.NDArray[Any], device: torch.device) -> torch.Tensor:
    """A copy of the array on the device, for whatever is launched from now on. On a CPU it is the array itself.

    A GPU copies from pinned memory by itself; from other memory the copy would wait for all that was launched before.
    torch keeps the pinned memory until the copy is done.
    """
    tensor = torch.from_numpy(array)
    if device.type != "cuda":
        return tensor.to(device)
    return tensor.pin_memory().to(device, non_blocking=True)
