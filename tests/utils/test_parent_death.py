"""Children that do not outlive their parent."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from tests.e2e.service import wait_until
from vfastml.utils import parent_death

PARENT = """
import subprocess, sys, time
from vfastml.utils.parent_death import killed_with_this_process
deaf = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(3600)"
child = subprocess.Popen([sys.executable, "-c", deaf], preexec_fn=killed_with_this_process(), process_group=0)
print(child.pid, flush=True)
time.sleep(3600)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="Linux alone can do this")
def test_child_is_killed_with_its_parent() -> None:
    root = Path(__file__).parents[2]
    with subprocess.Popen([sys.executable, "-c", PARENT], stdout=subprocess.PIPE, text=True, cwd=root) as parent:
        assert parent.stdout is not None
        child = psutil.Process(int(parent.stdout.readline()))
        assert child.is_running()
        parent.kill()
    try:
        wait_until(lambda: not child.is_running() or child.status() == psutil.STATUS_ZOMBIE, 30, "the child is gone")
    finally:
        if child.is_running():
            child.kill()


def test_other_systems_start_children_as_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parent_death.sys, "platform", "darwin")
    run = subprocess.run([sys.executable, "-c", ""], preexec_fn=parent_death.killed_with_this_process(), check=False)
    assert run.returncode == 0
