"""Aligned, zero, and had even where the kernel has no huge pages."""

from __future__ import annotations

import mmap

import pytest
import torch

from vfastml.text_engine.huge_pages import huge_zeros


class Refusing(mmap.mmap):
    def madvise(self, *_: int) -> None:
        raise OSError(22, "Invalid argument")


@pytest.mark.parametrize("size", [1, 1000, (5 << 20) + 3])
@pytest.mark.parametrize("kind", [mmap.mmap, Refusing])
def test_zeros(size: int, kind: type[mmap.mmap], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mmap, "mmap", kind)
    zeros = huge_zeros(size)
    assert (zeros.shape, zeros.dtype) == ((size,), torch.uint8)
    assert zeros.data_ptr() % (2 << 20) == 0
    assert not zeros.any()
    zeros.fill_(7)
