"""A Supervisor over two small processes that do as they are told, instead of a gateway and a model server:
`python -m tests.prebuilt_apps.supervised_pair GATEWAY MODEL_SERVER FOLDER`, with names of functions below.

Each process appends its name and pid to FOLDER/started as it starts.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path

from prebuilt_apps.openai.child_process import ChildProcess
from prebuilt_apps.openai.restart_budget import RestartBudget
from prebuilt_apps.openai.supervisor import Supervisor
from vfastml.utils.logging import configure_logging

DRAIN_S = 1.0
FIRST_PAUSE_S = 0.05


def works(started: int) -> None:
    say_ready()
    time.sleep(3600)


def breaks(started: int) -> None:
    say_ready()
    sys.exit(70)


def breaks_twice(started: int) -> None:
    (works if started > 2 else breaks)(started)


def breaks_and_stays_so(started: int) -> None:
    """Once ready, never again."""
    if started == 1:
        breaks(started)
    time.sleep(3600)


def is_killed(started: int) -> None:
    say_ready()
    os.kill(os.getpid(), signal.SIGKILL)


def is_killed_once(started: int) -> None:
    (works if started > 1 else is_killed)(started)


def fails(started: int) -> None:
    sys.exit(3)


def leaves(started: int) -> None:
    time.sleep(0.3)


def breaks_when_asked_to_end(started: int) -> None:
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(70))
    works(started)


def does_not_end(started: int) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    works(started)


def notes_its_end(started: int) -> None:
    """When it was asked for, and when it came."""

    def end(*_: object) -> None:
        asked_s = time.monotonic()
        time.sleep(0.3)
        with (Path(sys.argv[3]) / "ended").open("a") as file:
            file.write(f"{sys.argv[1]} {asked_s} {time.monotonic()}\n")
        sys.exit()

    signal.signal(signal.SIGTERM, end)
    works(started)


def say_ready() -> None:
    if "--ready-fd" in sys.argv:
        os.write(int(sys.argv[-1]), b"ready\n")


def play(role: str, name: str, folder: Path) -> None:
    with (folder / "started").open("a") as file:
        file.write(f"{role} {os.getpid()}\n")
    lines = (folder / "started").read_text().splitlines()
    globals()[name](sum(line.startswith(role) for line in lines))


def supervise(gateway: str, model_server: str, folder: str) -> int:
    configure_logging("info")
    command = [sys.executable, "-m", __spec__.name]
    return Supervisor(
        ChildProcess("gateway", [*command, "gateway", gateway, folder, "-"], os.environ),
        ChildProcess("model server", [*command, "model-server", model_server, folder, "-"], os.environ, "--ready-fd"),
        DRAIN_S,
        RestartBudget(FIRST_PAUSE_S),
    ).run()


if __name__ == "__main__":
    if "-" in sys.argv:
        play(sys.argv[1], sys.argv[2], Path(sys.argv[3]))
    else:
        sys.exit(supervise(*sys.argv[1:]))
