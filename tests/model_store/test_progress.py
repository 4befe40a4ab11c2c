from __future__ import annotations

from vfastml.model_store.progress import PhaseLines


def test_each_new_phase_is_written_once() -> None:
    written: list[str] = []
    progress = PhaseLines(written.append)
    progress("downloading", None)
    for percent in range(100):
        progress("downloading", percent / 100)
    progress("converting")
    progress("downloading", 0.0)
    assert written == ["downloading", "converting", "downloading"]
