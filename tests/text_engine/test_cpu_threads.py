"""As many threads as the process may use cores."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from vfastml.text_engine import cpu_threads
from vfastml.text_engine.cpu_threads import num_compute_threads


@pytest.mark.parametrize(
    ("quota", "expected"),
    [("max 100000", 6), ("150000 100000", 2), ("50000 100000", 1), ("900000 100000", 6), ("nonsense", 6), (None, 6)],
)
def test_a_quota_bounds_them(quota: str | None, expected: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "cpu.max"
    if quota is not None:
        file.write_text(quota + "\n")
    monkeypatch.setattr(cpu_threads, "_CPU_QUOTA", file)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 6)
    assert num_compute_threads() == expected
