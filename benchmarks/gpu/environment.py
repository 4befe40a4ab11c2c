"""What the figures were measured with: versions, the card and its state, and what the machine lacks."""

from __future__ import annotations

import platform
import shutil
import subprocess
import sys
from importlib import metadata

_PACKAGES = ("torch", "triton", "transformers", "flash-attn", "numpy", "pyzmq", "msgspec", "fastapi", "uvicorn")
_QUERY = (
    "name", "driver_version", "memory.total", "memory.used", "clocks.sm", "clocks.max.sm", "clocks.max.mem",
    "temperature.gpu", "power.limit", "utilization.gpu",
)  # fmt: skip
_NVIDIA_SMI_S = 30.0
_USED_MB = 1000.0
"""Of the card's memory, by others, from which on it is worth a word."""


def report() -> dict[str, str]:
    """By name, for the record."""
    found = {"python": platform.python_version(), "system": platform.platform()}
    found |= {name: version for name in _PACKAGES if (version := _version(name)) is not None}
    return found | {f"GPU {name}": value for name, value in gpu_state().items()}


def gpu_state() -> dict[str, str]:
    """As nvidia-smi says it, of the first card; empty where there is none."""
    if (program := shutil.which("nvidia-smi")) is None:
        return {}
    command = [program, f"--query-gpu={','.join(_QUERY)}", "--format=csv,noheader", "--id=0"]
    try:
        listing = subprocess.run(command, capture_output=True, text=True, timeout=_NVIDIA_SMI_S, check=True)
    except (OSError, subprocess.SubprocessError):
        return {}
    values = [value.strip() for value in listing.stdout.strip().split(",")]
    return dict(zip(_QUERY, values, strict=False))


def missing(*, dry: bool, has_gpu: bool) -> list[str]:
    """What this machine lacks, and what to do about it; whatever needs it will be noted as failed."""
    found = []
    if not dry and not has_gpu:
        found.append("torch sees no GPU: give it one (nvidia-smi, CUDA_VISIBLE_DEVICES), or try --dry")
    if _version("triton") is None:
        found.append("triton is not installed: the kernels cannot run; a CUDA build of torch brings it along")
    if not dry and _version("flash-attn") is None:
        found.append("flash-attn is not installed: that backend is left out; nothing to be done if it is not wanted")
    used = gpu_state().get("memory.used", "0").split()[0]
    if not dry and used.replace(".", "").isdigit() and float(used) > _USED_MB:
        found.append(f"{used} MiB of the card are in use by others: end them, or figures are lower than they could be")
    return found


def torch_sees_a_gpu() -> bool:
    """Asked in a process of its own: this one is to keep nothing on the card."""
    program = "import sys, torch; sys.exit(not torch.cuda.is_available())"
    return subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None
