"""Keeps a gateway and its model server running, and stops both."""

from __future__ import annotations

import contextlib
import logging
import signal
import time
from collections import defaultdict
from collections.abc import Iterator

from prebuilt_apps.openai.child_process import ChildProcess, described
from prebuilt_apps.openai.restart_budget import MOST_DEATHS, WINDOW_S, RestartBudget

logger = logging.getLogger("vfastml.prebuilt_apps.openai")

_POLL_S = 0.1
_PATIENCE_S = 10.0
"""For a process to end, beyond its grace time."""
_HURRY_S = 4.0
"""For a process to end that has no grace time."""
_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
"""The last one comes when the terminal is closed: the processes, in groups of their own, would not get it."""


class Supervisor:
    """Starts both. A model server that ends after it was ready is started again, while the gateway goes on; all else
    that ends by itself ends everything."""

    def __init__(
        self,
        gateway: ChildProcess,
        model_server: ChildProcess,
        grace_s: float,
        budget: RestartBudget | None = None,
    ) -> None:
        self._gateway = gateway
        self._model_server = model_server
        self._grace_s = grace_s
        """That each may need to finish what is open."""
        self._budget = budget or RestartBudget()
        self._was_ready = False
        self._start_again_s: float | None = None
        self._failure = 0
        """The status with which the model server has ended, until it is ready again."""
        self._asked_s: defaultdict[str, list[float]] = defaultdict(list)
        """When each was asked to end."""

    def run(self) -> int:
        """Until a signal comes or something ends that is not started again. Returns 0 if all were well at a signal, and
        ended well; else the status of the process that was not, or 1 if the machine has no room for it."""
        with _signals_noted() as signals:
            try:
                self._model_server.start()
                self._gateway.start()
                self._watch(signals)
                return self._stop(signals)
            except OSError as error:
                logger.error("cannot start a process: %s", error.strerror)
                return 1
            finally:
                for process in self._processes:
                    process.kill()

    @property
    def _processes(self) -> tuple[ChildProcess, ChildProcess]:
        return self._model_server, self._gateway

    def _watch(self, signals: list[int]) -> None:
        """Returns at a signal, or when all has to end."""
        while not signals and self._gateway_runs() and self._model_server_has_a_future():
            time.sleep(_POLL_S)

    def _gateway_runs(self) -> bool:
        status = self._gateway.status
        if status is not None:
            logger.error("the gateway has ended with %s: stopping", described(status))
            self._failure = status or 1
        return status is None

    def _model_server_has_a_future(self) -> bool:
        if self._start_again_s is not None:
            return self._pause_or_start()
        status = self._model_server.status  # before the next line: a process that has ended says nothing new
        if self._model_server.is_ready:
            self._on_ready()
        return status is None or self._on_death(status)

    def _on_ready(self) -> None:
        if self._failure:
            logger.info("the model server is ready again")
        self._was_ready, self._failure = True, 0

    def _on_death(self, status: int) -> bool:
        """False if it shall not be started again."""
        self._failure = status or 1
        if not self._was_ready:
            logger.error("the model server could not start, it has ended with %s: stopping", described(status))
            return False
        now_s = time.monotonic()
        pause_s = self._budget.pause_after_death(now_s)
        if pause_s is None:
            often = f"{MOST_DEATHS} times within {WINDOW_S:g} s"
            logger.error("the model server has ended %s, now with %s: giving up", often, described(status))
            return False
        said = "the model server has ended with %s: it is started again in %g s"
        logger.error(said, described(status), pause_s)
        self._start_again_s = now_s + pause_s
        return True

    def _pause_or_start(self) -> bool:
        if self._start_again_s is None or time.monotonic() < self._start_again_s:
            return True
        self._start_again_s = None
        try:
            self._model_server.start()
        except OSError as error:
            logger.error("cannot start the model server: %s", error.strerror)
            return self._on_death(status=1)
        return True

    def _stop(self, signals: list[int]) -> int:
        """Lets the gateway finish what is open, and then the model server; after a second signal or a failure both end
        at once. Returns the exit status."""
        while any(process.status is None for process in self._processes):
            at_once = len(signals) != 1  # without one, something has failed
            self._end(self._gateway, at_once=at_once)
            if at_once or self._gateway.status is not None:
                self._end(self._model_server, at_once=at_once)
            time.sleep(_POLL_S)
        return self._failure or max(_failure_of(process) for process in self._processes)

    def _end(self, process: ChildProcess, *, at_once: bool) -> None:
        """One step towards it: asks, asks again if it is to end at once, and kills it if that was long ago."""
        asked = self._asked_s[process.name]
        if len(asked) < (2 if at_once else 1):
            asked.append(time.monotonic())
            process.terminate()
        late_s = asked[-1] + (_HURRY_S if at_once else self._grace_s + _PATIENCE_S)
        if time.monotonic() > late_s and process.status is None:
            logger.error("the %s does not end: it is killed", process.name)
            process.kill()


def _failure_of(process: ChildProcess) -> int:
    """Its status, or 0 if it ended as it was asked to: early in its start the signal itself ends it."""
    status = process.status or 0
    return 0 if status == 128 + signal.SIGTERM else status


@contextlib.contextmanager
def _signals_noted() -> Iterator[list[int]]:
    """The stop signals that have come."""
    noted: list[int] = []
    before = {number: signal.signal(number, lambda number, _: noted.append(number)) for number in _SIGNALS}
    try:
        yield noted
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
