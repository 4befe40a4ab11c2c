"""Memory for what every step reads: aligned, zeroed as it is used, and in huge pages where there are any."""

from __future__ import annotations

import mmap
from contextlib import suppress

import torch

_HUGE_PAGE = 2 << 20


def huge_zeros(num_bytes: int) -> torch.Tensor:
    """[num_bytes] uint8 on the CPU, that begin at a huge page.

    Weights and KV cache are read at the speed of memory, and with pages of 4 KiB half of that is lost to looking up
    pages. A page that is never written takes no memory, and costs nothing at the start.
    """
    # private: memory that processes may share has no huge pages on most systems
    memory = mmap.mmap(-1, num_bytes + _HUGE_PAGE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    with suppress(AttributeError, OSError):  # neither every system nor every kernel has them
        memory.madvise(mmap.MADV_HUGEPAGE)
    tensor = torch.frombuffer(memory, dtype=torch.uint8)
    start = -tensor.data_ptr() % _HUGE_PAGE
    return tensor[start : start + num_bytes]
