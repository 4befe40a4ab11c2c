"""Model servers that hang: `python -m tests.models_servers.hanging_servers NAME PORT MAX_STEP_S`."""

from __future__ import annotations

import ctypes
import logging
import sys
import time

from tests.models_servers.stub_server import Silent
from vfastml.engine.dispatch_replies import Finished
from vfastml.models_servers import model_server
from vfastml.models_servers.unsent_replies import WorkReply


class Sleeps(Silent):
    """Its first step never ends."""

    def due_in_s(self) -> float | None:
        return 0 if self.asked else None

    def cancel(self, request_id: str) -> None:
        """Too late: the step has it."""

    def step(self) -> list[WorkReply]:
        sleep_for_ever()
        return []


def sleep_for_ever() -> None:
    while True:
        time.sleep(3600)


def keep_for_ever() -> None:
    ctypes.PyDLL(None).sleep(3600)


class KeepsTheLock(Sleeps):
    """No other thread of the process gets on."""

    def step(self) -> list[WorkReply]:
        keep_for_ever()
        return []


class WorksForASecond(Sleeps):
    """A second in which it runs: one sleep of so long would end in a process that is stopped, too."""

    def step(self) -> list[WorkReply]:
        for _ in range(10):
            time.sleep(0.1)
        logging.getLogger("vfastml").info("the step is over")
        return [Finished(self.asked.pop())]


class LoadsForASecond(Silent):
    def load(self) -> None:
        super().load()
        time.sleep(1.0)


class NeverCloses(Silent):
    """Not a thread of the process gets on when it should let go of the model."""

    def load(self) -> None:
        super().load()
        model_server._CLOSING_S = 0.5

    def close(self) -> None:
        keep_for_ever()


if __name__ == "__main__":
    name, port, max_step_s = sys.argv[1:]
    globals()[name]("text_generation", "stub", rpc_port=int(port), max_step_s=float(max_step_s)).run_forever()
