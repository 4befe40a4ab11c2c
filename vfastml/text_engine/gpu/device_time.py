"""How long launches take on a GPU, without what launching them costs the host."""

from __future__ import annotations

from collections.abc import Callable

import torch

from vfastml.text_engine.gpu.cuda_capture import CudaCapture

_ROUNDS = 3


class DeviceTime:
    """Times functions on one CUDA device: each is recorded as a graph and replayed."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._capture = CudaCapture(device)
        self._replay: Callable[[], None] = lambda: None

    def __call__(self, run: Callable[[], None]) -> float:
        """Seconds: the least of a few rounds. Raises what `run` raises."""
        self._replay = self._capture(run)  # the one before goes only now: torch refuses a pool that no graph is left in
        with torch.cuda.device(self._device):
            self._replay()
            return min(self._seconds(self._replay) for _ in range(_ROUNDS))

    def _seconds(self, replay: Callable[[], None]) -> float:
        began, ended = (torch.cuda.Event(enable_timing=True) for _ in range(2))  # type: ignore[no-untyped-call]
        began.record()
        replay()
        ended.record()
        ended.synchronize()
        return 1e-3 * float(began.elapsed_time(ended))
