"""What a GPU is asked, and the bound that torch is given there."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tests.text_engine.engine_driver import EngineDriver
from vfastml.engine.dispatch_requests import SamplingParams
from vfastml.text_engine.cuda_memory import card_memory, keep_to
from vfastml.text_engine.gpu_memory import CONTEXT_BYTES, CardMemory

GPU = torch.device("cuda:0")
GIB = 1 << 30
needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")


@pytest.fixture
def bounds(monkeypatch: pytest.MonkeyPatch) -> list[tuple[float, torch.device]]:
    """A card of 80 GiB that others use too; what torch is told to keep to there."""
    told: list[tuple[float, torch.device]] = []
    reserved = {"now": 20 * GIB}
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: reserved.update(now=16 * GIB))
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (50 * GIB, 80 * GIB))
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda device: reserved["now"])
    monkeypatch.setattr(torch.cuda, "set_per_process_memory_fraction", lambda *given: told.append(given))
    return told


@pytest.mark.usefixtures("bounds")
def test_unused_memory_of_earlier_steps_is_not_counted() -> None:
    assert card_memory(GPU) == CardMemory(80 * GIB, 50 * GIB, 16 * GIB)


@pytest.mark.parametrize(("asked", "limit"), [(0.5, 40 * GIB), (10.0 * GIB, 10 * GIB), (1000.0, CONTEXT_BYTES)])
def test_torch_keeps_to_the_limit_less_what_it_does_not_count(
    bounds: list[tuple[float, torch.device]], asked: float, limit: int
) -> None:
    keep_to(asked, GPU)
    assert bounds == [((limit - CONTEXT_BYTES) / (80 * GIB), GPU)]


@needs_gpu
def test_more_than_the_limit_is_not_to_be_had() -> None:
    memory = card_memory(GPU)
    assert 0 < memory.free <= memory.total
    try:
        keep_to(float(memory.reserved + CONTEXT_BYTES + GIB), GPU)
        torch.empty(GIB // 2, dtype=torch.uint8, device=GPU)
        with pytest.raises(torch.cuda.OutOfMemoryError):
            torch.empty(2 * GIB, dtype=torch.uint8, device=GPU)
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0, GPU)


@needs_gpu
def test_an_engine_keeps_to_its_limit(tiny_models: dict[str, Path]) -> None:
    limit = CONTEXT_BYTES + 2 * GIB
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats(GPU)
    try:
        driver = EngineDriver.load(tiny_models["llama"], device="cuda:0", dtype="float16", gpu_memory=float(limit))
        request = driver.add([5, 6, 7], SamplingParams(max_tokens=4, temperature=0.0, ignore_eos=True))
        driver.run()
        assert len(driver.tokens(request)) == 4
        assert torch.cuda.max_memory_reserved(GPU) <= limit - CONTEXT_BYTES
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0, GPU)
