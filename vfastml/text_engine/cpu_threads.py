"""How many threads compute on a CPU."""

from __future__ import annotations

import math
from pathlib import Path

import torch

_CPU_QUOTA = Path("/sys/fs/cgroup/cpu.max")


def num_compute_threads() -> int:
    """As many as torch would take, which knows OMP_NUM_THREADS and the processors that this process may use; and no
    more than the container's quota (control groups, version 2), where threads beyond it would only be put aside."""
    return max(1, min(torch.get_num_threads(), _quota()))


def _quota() -> int:
    try:
        quota, period = _CPU_QUOTA.read_text().split()
        return math.ceil(int(quota) / int(period))  # without a quota it says `max`: ValueError
    except (OSError, ValueError):
        return 1 << 16
