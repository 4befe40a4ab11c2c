"""What the programs of the parts share: a task comes as JSON, measurements go into a file."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import msgspec

from benchmarks.errors import BenchmarkError
from benchmarks.gpu.measurements import MeasurementFile
from benchmarks.stopping import INTERRUPTED, until_stopped
from vfastml.errors import VFastMLError

NOT_HERE = 3
"""The exit status of a part that this machine, or this version of something, cannot run; the last line says why."""

Task = TypeVar("Task", bound=msgspec.Struct)


def part_program(measure: Callable[[Task, MeasurementFile], None], task_type: type[Task]) -> int:
    """For `python -m benchmarks.gpu.PART TASK FILE`; the exit status. Begins when a line comes on standard input: until
    then nothing is on the card, but all that takes long to import is there."""
    task = msgspec.json.decode(sys.argv[1], type=task_type)
    found = MeasurementFile(Path(sys.argv[2]))

    def run() -> int:
        if not sys.stdin.readline():
            return INTERRUPTED
        try:
            measure(task, found)
        except (NotHereError, VFastMLError) as error:
            print(error, file=sys.stderr)
            return NOT_HERE
        except BenchmarkError as error:
            print(error, file=sys.stderr)
            return 1
        return 0

    return until_stopped(run)


class NotHereError(Exception):
    """What this machine lacks: one line."""
