"""The machine that the client runs on."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
from pathlib import Path

import msgspec
import psutil


class Machine(msgspec.Struct, kw_only=True):
    """What a figure means nothing without."""

    cpu: str
    cores: int
    """That this process may use."""
    memory_gb: float
    gpus: list[str]
    system: str
    python: str
    load_average: float
    """Over the minute before the benchmark: well above 0, others were at work."""

    def __str__(self) -> str:
        gpus = f", {', '.join(self.gpus)}" if self.gpus else ""
        return f"{self.cpu}, {self.cores} cores, {self.memory_gb:.0f} GB{gpus}; load before: {self.load_average:.1f}"


def this_machine() -> Machine:
    """As it is now."""
    return Machine(
        cpu=_cpu_model(),
        cores=len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1,
        memory_gb=round(psutil.virtual_memory().total / 1e9, 1),
        gpus=_gpus(),
        system=platform.platform(),
        python=platform.python_version(),
        load_average=round(psutil.getloadavg()[0], 2),
    )


def _cpu_model() -> str:
    listing = Path("/proc/cpuinfo")
    lines = listing.read_text().splitlines() if listing.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def _gpus() -> list[str]:
    program = shutil.which("nvidia-smi")
    if program is None:
        return []
    command = [program, "--query-gpu=name", "--format=csv,noheader"]
    try:
        listing = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return []
    return listing.stdout.split("\n")[:-1] if listing.returncode == 0 else []
