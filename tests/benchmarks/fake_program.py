"""A program that serves as the peers do, and writes down when it starts and ends.

`python -m tests.benchmarks.fake_program JOURNAL NAME PORT BEHAVIOUR`, with BEHAVIOUR `well`, `hang` (its streams never
end), `stubborn` (SIGTERM is nothing to it, nor to its child) or `broken` (ends at once).
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from benchmarks.peers import Command, NotAvailable, Peer, Task, Tools
from tests.benchmarks.fake_server import FakeServer, serving


def fake_peer(name: str, journal: Path, behaviour: str = "well") -> Peer:
    """To be put into the place of a real one; `missing` is not installed."""

    def command(tools: Tools, task: Task, port: int) -> Command:
        if behaviour == "missing":
            raise NotAvailable("it is not there; install it")
        program = [sys.executable, "-m", "tests.benchmarks.fake_program"]
        return Command([*program, str(journal), name, str(port), behaviour], {"FAKE": name})

    return Peer(name, "/health", command)


def main(journal: Path, name: str, port: int, behaviour: str, *flags: str) -> None:
    """Until SIGTERM."""

    def note(what: str) -> None:
        with journal.open("a") as lines:
            lines.write(f"{what} {os.getpid()}\n")

    if behaviour == "broken":
        sys.exit("the model is not to my taste")
    ended = []
    signal.signal(signal.SIGTERM, lambda *_: ended.append(1) if behaviour != "stubborn" else None)
    if behaviour == "stubborn":
        child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"], process_group=0)
        with journal.open("a") as lines:
            lines.write(f"child of {name} {child.pid}\n")
    trouble = dict.fromkeys(range(1000), "hang") if behaviour == "hang" else {}
    with serving(FakeServer(port=port, trouble=trouble)):
        note(" ".join(["start", os.environ["FAKE"], *flags]))
        while not ended:
            time.sleep(0.01)
        note(f"end {name}")


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]), *sys.argv[4:])
