"""What graphs share: a stream and memory."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from vfastml.text_engine.gpu.cuda_capture import CudaCapture


class FakeStream:
    def __init__(self, device: object = None) -> None:
        self.device = device

    def wait_stream(self, other: FakeStream) -> None:
        pass


def test_all_graphs_are_recorded_on_one_stream_and_in_one_pool(monkeypatch: pytest.MonkeyPatch) -> None:
    """On another stream a graph would find nothing of the memory that is free in the pool."""
    recorded: list[tuple[Any, Any]] = []
    warmed: list[Any] = []

    def graph(made: object, *, pool: object, stream: object, **_: object) -> AbstractContextManager[None]:
        recorded.append((pool, stream))
        return nullcontext()

    def on(stream: object) -> AbstractContextManager[None]:
        warmed.append(stream)
        return nullcontext()

    fakes = {
        "graph_pool_handle": object,
        "Stream": FakeStream,
        "current_stream": FakeStream,
        "device": nullcontext,
        "stream": on,
        "CUDAGraph": lambda: SimpleNamespace(replay=lambda: None),
        "graph": graph,
    }
    for name, fake in fakes.items():
        monkeypatch.setattr(torch.cuda, name, fake)
    capture = CudaCapture(torch.device("cuda:1"))
    runs: list[int] = []
    for number in range(3):
        capture(lambda number=number: runs.append(number))  # type: ignore[misc]
    assert runs == [0, 0, 1, 1, 2, 2]
    assert len(set(recorded)) == 1
    assert {*warmed} == {recorded[0][1]}
    assert recorded[0][1].device == torch.device("cuda:1")


def test_a_smaller_graph_fits_into_the_memory_of_a_larger_one(device: torch.device) -> None:
    if device.type != "cuda":
        pytest.skip("only a card has graphs")
    capture = CudaCapture(device)
    numbers = torch.ones(1 << 24, device=device)
    sums = torch.zeros(1, device=device)
    replays = []
    reserved = []
    for size in (1 << 24, 1 << 23, 1 << 22):
        part = numbers[:size]
        replays.append(capture(lambda part=part: sums.copy_((part * 2).sum()[None])))  # type: ignore[misc]
        torch.cuda.empty_cache()
        reserved.append(torch.cuda.memory_reserved(device))
    assert reserved[0] == reserved[1] == reserved[2]
    for replay, size in zip(replays, (1 << 24, 1 << 23, 1 << 22), strict=True):
        replay()
        assert sums.item() == 2 * size
