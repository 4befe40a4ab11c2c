"""`vfastml serve` with a tiny model, faults on request, and eyes on its processes."""

from __future__ import annotations

import os
import time
from pathlib import Path
from types import TracebackType

import httpx
import psutil
import pytest

from tests.e2e.service import free_port, wait_until
from tests.models_servers.started_process import PATIENCE_S, ROOT, StartedProcess

HOOKS = Path(__file__).parent / "hooks"
_APP = "prebuilt_apps.openai"


class ServedTogether(StartedProcess):
    """Runs from its construction on; whatever is left of it at the end of the `with` block is killed."""

    def __init__(self, folder: Path, *arguments: object, ports: tuple[int, int] | None = None) -> None:
        self.ports = ports or (free_port(), free_port())
        self.url = f"http://127.0.0.1:{self.ports[0]}"
        given = ["--port", self.ports[0], "--rpc-port", self.ports[1], "--kv-cache-memory", "20MB"]
        super().__init__(folder / "log", _APP, *given, "--dtype", "float32", *arguments)
        self._http = httpx.Client(base_url=self.url, timeout=5, trust_env=False)
        self._seen: set[psutil.Process] = set()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        left = self.left()
        super().__exit__(kind, error, trace)
        self._http.close()
        for process in left:
            process.kill()

    def wait_ready(self) -> float:
        """Seconds until it can answer."""
        waited_s = wait_until(lambda: self.status_of("/readyz") == 200, PATIENCE_S, f"ready; see\n{self.output}")
        self._look()
        return waited_s

    def status_of(self, path: str) -> int:
        """HTTP status of a GET; 0 if nobody listens."""
        try:
            return self._http.get(path).status_code
        except httpx.TransportError:
            return 0

    def complete(self, timeout_s: float = 60.0) -> int:
        """HTTP status of a short completion."""
        body = {"prompt": "x", "max_tokens": 3}
        return self._http.post("/v1/completions", json=body, timeout=timeout_s).status_code

    def part(self, module: str) -> psutil.Process:
        """Its `model_server` or `api_server`, once that runs."""
        wait_until(lambda: bool(self._parts(module)), PATIENCE_S, f"{module} runs; see\n{self.output}")
        return self._parts(module)[0]

    def left(self) -> list[psutil.Process]:
        """The processes that it has started and that are still there."""
        self._look()
        return [process for process in self._seen if is_alive(process)]

    def _parts(self, module: str) -> list[psutil.Process]:
        self._look()
        name = f"{_APP}.{module}"
        return [process for process in self._seen if is_alive(process) and name in _words_of(process)]

    def _look(self) -> None:
        if psutil.pid_exists(self.process.pid) and self.process.poll() is None:
            self._seen.update(psutil.Process(self.process.pid).children(recursive=True))


def is_alive(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def _words_of(process: psutil.Process) -> list[str]:
    """Of its command line."""
    try:
        return process.cmdline()
    except psutil.Error:
        return []  # it has ended meanwhile


def gone_after_s(process: psutil.Process) -> float:
    """Seconds until it has ended."""
    return wait_until(lambda: not is_alive(process), PATIENCE_S, f"{process} has ended")


class StepFaults:
    """What shall happen in a model server's next step."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self._folder = folder
        monkeypatch.setenv("STEP_FAULTS", str(folder))
        add_hooks(monkeypatch)

    def sleep(self, seconds: float) -> None:
        """It takes so long."""
        self._place("sleep", str(seconds))

    def break_(self) -> None:
        """It raises."""
        self._place("break", "")

    def wait_taken(self, name: str) -> float:
        """When the step began, on the clock of `time.monotonic`."""
        wait_until(lambda: not (self._folder / name).exists(), PATIENCE_S, f"a step takes {name!r}")
        return time.monotonic()

    def _place(self, name: str, text: str) -> None:
        # whole or not at all: a step may look at any time
        (self._folder / f".{name}").write_text(text)
        (self._folder / f".{name}").rename(self._folder / name)


def add_hooks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Processes started from now on run hooks/sitecustomize.py first."""
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(HOOKS), str(ROOT)]))
