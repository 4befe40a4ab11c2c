"""In the place of CUDA's capture: a replay runs the function again, and each of its launches must be the one that was
recorded, with the same numbers and over the same memory. Whatever a real graph would have baked in and should not have,
a length, a grid, a tensor that was made anew outside, shows as a difference; and whatever reads the device's results on
the host, which no graph can, raises."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes
from torch.utils._pytree import tree_leaves, tree_map
from triton.runtime.jit import KernelInterface

from tests.text_engine.triton_kernels.watched_run import NoReads


class CheckedCapture:
    """A Capture. `num_replays` counts the replays of all graphs."""

    def __init__(self) -> None:
        self.num_replays = 0

    def __call__(self, run: Callable[[], None]) -> Callable[[], None]:
        with torch.inference_mode():
            recorded = _recorded(run)

        def replay() -> None:
            self.num_replays += 1
            found = _recorded(run)
            assert len(found) == len(recorded)
            for launch, expected in zip(found, recorded, strict=True):
                assert launch == expected

        return replay


def _recorded(run: Callable[[], None]) -> list[tuple[Any, ...]]:
    recorder = _Recorder()
    launcher = KernelInterface.__getitem__

    def noting(kernel: Any, grid: Any) -> Callable[..., Any]:
        def launch(*arguments: Any, **options: Any) -> Any:
            recorder.note(kernel.__name__, (grid, arguments, options))
            with _disable_current_modes(), torch._C.DisableTorchFunction():
                return launcher(kernel, grid)(*arguments, **options)

        return launch

    KernelInterface.__getitem__ = noting
    try:
        with NoReads(), recorder:
            run()
    finally:
        KernelInterface.__getitem__ = launcher
    return recorder.launches


class _Recorder(TorchDispatchMode):
    """Tensors made by the run itself are known by when they were made, all others by where they lie."""

    def __init__(self) -> None:
        super().__init__()
        self.launches: list[tuple[Any, ...]] = []
        self._made: dict[int, int] = {}
        self._kept: list[torch.Tensor] = []
        """Keeps their memory from being given out twice."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.note(func._schema.name, (args, kwargs or {}))
        result = func(*args, **(kwargs or {}))
        given = {_place(value) for value in tree_leaves((args, kwargs or {})) if isinstance(value, torch.Tensor)}
        for value in tree_leaves(result):
            if isinstance(value, torch.Tensor) and _place(value) not in given:
                self._made.setdefault(_place(value), len(self._made))
                self._kept.append(value)
        return result

    def note(self, name: str, arguments: Any) -> None:
        """A launch."""
        self.launches.append((name, tree_map(self._described, arguments)))

    def _described(self, value: Any) -> Any:
        if not isinstance(value, torch.Tensor):
            return value
        made = self._made.get(_place(value))
        where = ("outside", value.data_ptr()) if made is None else ("made", made)
        return where, tuple(value.shape), value.stride(), value.dtype


def _place(tensor: torch.Tensor) -> int:
    return tensor.untyped_storage().data_ptr()
