"""CUDA graphs: a function's launches, recorded once and made again with one call."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch

Capture = Callable[[Callable[[], None]], Callable[[], None]]
"""Takes a function whose launches depend on nothing but what is in tensors that stay where they are. Returns a function
that makes the same launches again."""


class CudaCapture:
    """Capture on one CUDA device. All graphs share one pool of memory: they run one after the other. What one graph has
    freed is given only to graphs that are recorded on the same stream, and cuBLAS has a workspace for each stream: so
    there is one stream for all."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._pool = torch.cuda.graph_pool_handle()
        self._stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]

    def __call__(self, run: Callable[[], None]) -> Callable[[], None]:
        """Runs `run` once for real, so that kernels are compiled and libraries have their workspaces, and then
        records it."""
        with torch.cuda.device(self._device), torch.inference_mode():
            side = self._stream
            side.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(side):
                run()
            torch.cuda.current_stream().wait_stream(side)
            graph = torch.cuda.CUDAGraph()
            # thread_local: what other threads do on the card meanwhile is no part of it
            with (
                _no_garbage(),
                torch.cuda.graph(graph, pool=self._pool, stream=side, capture_error_mode="thread_local"),
            ):
                run()
        return graph.replay


@contextmanager
def _no_garbage() -> Iterator[None]:
    """A collection in the midst of a capture would free tensors of others, which a capture does not allow."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()
