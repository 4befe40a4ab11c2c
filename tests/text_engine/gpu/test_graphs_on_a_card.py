"""CUDA graphs themselves, on a card."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from vfastml.text_engine.gpu.cuda_capture import CudaCapture
from vfastml.text_engine.gpu.device_time import DeviceTime

pytestmark = pytest.mark.gpu
MIB = 1 << 20


def test_a_replay_reads_its_tensors_anew(device: torch.device) -> None:
    given, made = torch.ones(4, device=device), torch.zeros(4, device=device)

    def run() -> None:
        made.copy_(given * 2 + 1)

    replay = CudaCapture(device)(run)
    given.fill_(5.0)
    replay()
    assert made.tolist() == [11.0] * 4


def test_all_graphs_compute_in_the_same_memory(device: torch.device) -> None:
    """The largest first, as steps are recorded."""
    capture, total = CudaCapture(device), torch.zeros((), device=device)

    def step_of(size: int) -> Callable[[], None]:
        def step() -> None:
            total.add_(torch.full((size * MIB,), 1.0, device=device).sum())

        return step

    torch.cuda.empty_cache()
    before = torch.cuda.memory_reserved(device)
    replays = [capture(step_of(size)) for size in range(40, 30, -1)]
    torch.cuda.empty_cache()
    assert torch.cuda.memory_reserved(device) - before < 2 * 4 * 40 * MIB
    total.zero_()
    for replay in replays:
        replay()
    assert total.item() == sum(range(40, 30, -1)) * MIB


def test_functions_are_timed_one_after_the_other(device: torch.device) -> None:
    """What cannot run is in nobody's way."""
    seconds, source = DeviceTime(device), torch.ones(64 * MIB, device=device)

    def fails() -> None:
        raise RuntimeError("out of resources")

    def copies() -> None:
        source.clone()

    def copies_a_part() -> None:
        source[:16].clone()

    short = seconds(copies_a_part)
    with pytest.raises(RuntimeError, match="out of resources"):
        seconds(fails)
    assert 0 < short < seconds(copies)
