"""Runs the main of the text model server once for each list of arguments, in forks of one process that has imported
torch already: `python -m tests.models_servers.failing_starts FOLDER`, with a JSON list of lists in FOLDER/cases.json.

The output of case 3 is FOLDER/3.log; its exit status, in the list in FOLDER/statuses.json.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import traceback
from importlib import import_module
from pathlib import Path

from prebuilt_apps.openai.model_server import main

LONGEST_S = 120


def status_of(arguments: list[str], log: Path) -> int:
    pid = os.fork()
    if pid == 0:
        _run(arguments, log)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def _run(arguments: list[str], log: Path) -> None:
    signal.alarm(LONGEST_S)
    with log.open("wb") as output:
        os.dup2(output.fileno(), 1)
        os.dup2(output.fileno(), 2)
    status = 0
    try:
        main(arguments)
    except SystemExit as stop:
        status = int(stop.code or 0)
    except BaseException:
        status = 99
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(status)


if __name__ == "__main__":
    folder = Path(sys.argv[1])
    import_module("vfastml.models_servers.model_server_text_hf")
    cases = json.loads((folder / "cases.json").read_text())
    statuses = [status_of(case, folder / f"{number}.log") for number, case in enumerate(cases)]
    (folder / "statuses.json").write_text(json.dumps(statuses))
