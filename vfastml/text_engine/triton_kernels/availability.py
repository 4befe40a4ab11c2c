"""Can the Triton kernels run here? Asked before any of them is imported."""

from __future__ import annotations

import importlib.util
import os
import shutil
import sysconfig
from pathlib import Path

import torch

_LEAST_CAPABILITY = (8, 0)
"""Ampere: the first with matrix instructions for bfloat16."""
_LEAST_FOR_FP8 = (8, 9)


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
    if not _compiles_c():
        return "Triton needs a C compiler and Python's headers, such as the packages gcc and python3-dev"
    return None


def _compiles_c() -> bool:
    """Triton builds the code that launches a kernel when it is first used, with what it finds so."""
    compiler = os.environ.get("CC") or shutil.which("gcc") or shutil.which("clang")
    scheme = sysconfig.get_default_scheme().replace("posix_local", "posix_prefix")  # Debian's own
    return compiler is not None and Path(sysconfig.get_path("include", scheme), "Python.h").is_file()


def missing_for_fp8(device: torch.device) -> str | None:
    """What the device lacks for products in 8-bit floats, in a few words; None if it should have them."""
    if device.type != "cuda":
        return f"{device.type} is no GPU"
    if torch.cuda.get_device_capability(device) < _LEAST_FOR_FP8:
        return "the GPU is older than Ada and Hopper"
    if not hasattr(torch, "_scaled_mm"):
        return "this torch has no _scaled_mm"
    return missing(device)


def is_interpreted() -> bool:
    """Whether kernels that are imported from now on run in Triton's interpreter."""
    return os.environ.get("TRITON_INTERPRET", "0") == "1"
