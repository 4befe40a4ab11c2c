"""How many threads compute on a CPU."""

from __future__ import annotations

import math
from pathlib import Path

import torch

_CONTROL_GROUPS, _OWN_GROUP = Path("/sys/fs/cgroup"), Path("/proc/self/cgroup")


def num_compute_threads() -> int:
    """As many as torch would take, which knows OMP_NUM_THREADS and the processors that this process may use; and no
    more than its quota of their time, because threads beyond it would only be put aside."""
    quota = cpu_quota()
    threads = torch.get_num_threads()
    return threads if quota is None else max(1, min(threads, math.ceil(quota)))


def cpu_quota() -> float | None:
    """How many processors' time the control groups (version 2) leave this process; None where none has a limit."""
    try:
        own = next(line[3:] for line in _OWN_GROUP.read_text().splitlines() if line.startswith("0::"))
        group = _CONTROL_GROUPS / own.lstrip("/")
        files = [folder / "cpu.max" for folder in (group, *group.parents)]
        limits = [path.read_text().split() for path in files if path.is_file()]
        return min((int(quota) / int(period) for quota, period in limits if quota != "max"), default=None)
    except (OSError, StopIteration, ValueError):
        return None
