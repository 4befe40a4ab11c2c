"""As many threads as the process may use cores."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from vfastml.text_engine import cpu_threads
from vfastml.text_engine.cpu_threads import cpu_quota, num_compute_threads


@pytest.fixture
def groups(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A group `slice` with a group `service` in it, the process's own."""
    monkeypatch.setattr(cpu_threads, "_CONTROL_GROUPS", tmp_path)
    monkeypatch.setattr(cpu_threads, "_OWN_GROUP", tmp_path / "own")
    (tmp_path / "own").write_text("1:cpu:/old\n0::/slice/service\n")
    (tmp_path / "slice/service").mkdir(parents=True)
    return tmp_path


@pytest.mark.parametrize(
    ("of_slice", "of_service", "quota", "threads"),
    [
        (None, None, None, 6),
        ("max 100000", "max 100000", None, 6),
        ("150000 100000", "max 100000", 1.5, 2),
        ("150000 100000", "50000 100000", 0.5, 1),
        ("900000 100000", None, 9.0, 6),
        ("nonsense", None, None, 6),
    ],
)
def test_the_smallest_quota_above_bounds_them(
    of_slice: str | None,
    of_service: str | None,
    quota: float | None,
    threads: int,
    groups: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for folder, text in (("slice", of_slice), ("slice/service", of_service)):
        if text is not None:
            (groups / folder / "cpu.max").write_text(text + "\n")
    monkeypatch.setattr(torch, "get_num_threads", lambda: 6)
    assert cpu_quota() == quota
    assert num_compute_threads() == threads


def test_without_groups_of_version_2(groups: Path) -> None:
    (groups / "own").write_text("1:cpu:/old\n")
    assert cpu_quota() is None
    (groups / "own").unlink()
    assert cpu_quota() is None
