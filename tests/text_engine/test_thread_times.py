"""How long threads ran, and how long they waited for a core."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import pytest

from vfastml.text_engine import thread_times
from vfastml.text_engine.thread_times import ThreadTimes


@pytest.mark.skipif(ThreadTimes.now().ran == 0, reason="the system does not tell")
def test_work_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Of this thread alone: others that end in between take their times with them.
    (tmp_path / "own").symlink_to(f"/proc/self/task/{threading.get_native_id()}")
    monkeypatch.setattr(thread_times, "_TASKS", tmp_path)
    before = ThreadTimes.now()
    began = time.thread_time_ns()
    while time.thread_time_ns() - began < 50_000_000:
        pass
    assert ThreadTimes.now().ran - before.ran >= 40_000_000


def test_share() -> None:
    before = ThreadTimes(100, 10)
    assert ThreadTimes(190, 20).waited_share_since(before) == pytest.approx(0.1)
    assert ThreadTimes(190, 10).waited_share_since(before) == 0.0
    assert before.waited_share_since(before) == 0.0
    assert ThreadTimes(50, 5).waited_share_since(before) == 0.0  # threads have ended in between


def test_sums_what_can_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, text in {"1": "5 7 1\n", "2": "30 40 2\n", "3": "nonsense", "4": None}.items():
        (tmp_path / name).mkdir()
        if text is not None:
            (tmp_path / name / "schedstat").write_text(text)
    monkeypatch.setattr(thread_times, "_TASKS", tmp_path)
    assert ThreadTimes.now() == ThreadTimes(35, 47)
    monkeypatch.setattr(thread_times, "_TASKS", tmp_path / "elsewhere")
    assert ThreadTimes.now() == ThreadTimes(0, 0)
