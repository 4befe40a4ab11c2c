"""Can the Triton kernels run here? Asked before any of them is imported."""

from __future__ import annotations

import importlib.util
import os

import torch

_LEAST_CAPABILITY = (8, 0)
"""Ampere: the first with matrix instructions for bfloat16."""


def missing(device: torch.device) -> str | None:
    """What the kernels lack on this device, in a few words; None if they run. On a CPU they run only in Triton's
    interpreter (`TRITON_INTERPRET=1`), which is for tests: it takes seconds for a step."""
    if importlib.util.find_spec("triton") is None:
        return "the package triton is not installed"
    if is_interpreted():
        return None
    if device.type != "cuda":
        return f"Triton does not compile for {device.type}"
    if torch.cuda.get_device_capability(device) < _LEAST_CAPABILITY:
        return "the GPU is older than Ampere"
    return None


def is_interpreted() -> bool:
    """Whether kernels that are imported from now on run in Triton's interpreter."""
    return os.environ.get("TRITON_INTERPRET", "0") == "1"
