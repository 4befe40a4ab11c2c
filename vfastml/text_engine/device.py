"""Where to compute."""

from __future__ import annotations

import torch

from vfastml.errors import InvalidRequestError


def settle_device(asked: str) -> torch.device:
    """`auto` is the first GPU, or the CPU. Raises InvalidRequestError for a device that is not there."""
    if asked == "auto":
        return torch.device("cuda:0" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(asked)
    except RuntimeError as error:
        raise InvalidRequestError(f"The device {asked!r} is not known: use auto, cpu or cuda:0.") from error
    if device.type not in ("cpu", "cuda"):
        raise InvalidRequestError(f"The device {asked!r} is not supported: use auto, cpu or cuda:0.")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise InvalidRequestError(
            f"There is no device {asked}: this machine has {torch.cuda.device_count()} CUDA devices."
        )
    return torch.device("cuda", device.index or 0) if device.type == "cuda" else device
