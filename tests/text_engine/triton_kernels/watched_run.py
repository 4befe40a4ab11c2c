"""What a run asks of the device: how many launches, and nothing of what the device has computed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes
from triton.runtime.jit import KernelInterface

_ALLOCATES = ("aten::empty", "aten::new_empty", "aten::empty_like", "aten::empty_strided")
_OF_TENSORS = (
    *("item", "tolist", "numpy", "cpu", "cuda", "to", "nonzero", "unique", "masked_select", "is_nonzero"),
    *("__bool__", "__int__", "__float__", "__index__", "__contains__"),
)
_READS = {getattr(torch.Tensor, name) for name in _OF_TENSORS} | {torch.tensor, torch.from_numpy, torch.equal}
"""What waits for the device, or brings something from the host."""


@dataclass
class Launches:
    """Their names, in order."""

    names: list[str] = field(default_factory=list)


@contextmanager
def watched() -> Iterator[Launches]:
    """Inside, launches are noted, and what reads the device's results on the host raises. What Triton does for a
    launch, which in its interpreter is the whole kernel, counts as one launch."""
    launches = Launches()
    launcher = KernelInterface.__getitem__

    def noting(kernel: Any, grid: Any) -> Callable[..., Any]:
        def launch(*arguments: Any, **options: Any) -> Any:
            launches.names.append(kernel.__name__)
            with _disable_current_modes(), torch._C.DisableTorchFunction():
                return launcher(kernel, grid)(*arguments, **options)

        return launch

    KernelInterface.__getitem__ = noting
    try:
        with NoReads(), _Noting(launches):
            yield launches
    finally:
        KernelInterface.__getitem__ = launcher


class _Noting(TorchDispatchMode):
    def __init__(self, launches: Launches) -> None:
        super().__init__()
        self._launches = launches

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func._schema.name
        assert name != "aten::_local_scalar_dense", "a number is read on the host"
        if not func.is_view and name not in _ALLOCATES:
            self._launches.names.append(name)
        return func(*args, **(kwargs or {}))


class NoReads(TorchFunctionMode):
    """Inside, what reads the device's results on the host raises."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        assert func not in _READS, f"{func} waits for the device"
        return func(*args, **(kwargs or {}))
