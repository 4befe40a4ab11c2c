"""What is shown while a run goes on."""

from __future__ import annotations

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from benchmarks.records import Level


class Bars:
    """Drawn when a request has ended, and only then: a clock of its own would take time from the server."""

    def __init__(self, console: Console, repeats: int, name: str = "") -> None:
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
        self._progress = Progress(
            *columns, console=console, auto_refresh=False, transient=True, disable=not console.is_terminal
        )
        self._repeats = repeats
        self._name = f"{name}, " if name else ""
        self._task: TaskID | None = None

    def __enter__(self) -> Bars:
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def run_begins(self, level: Level, repeat: int, requests: int) -> None:
        """A new bar."""
        title = f"{self._name}{level}, run {repeat} of {self._repeats}"
        self._task = self._progress.add_task(title, total=requests)
        self._progress.refresh()

    def one_done(self) -> None:
        """It grows."""
        if self._task is not None:
            self._progress.update(self._task, advance=1, refresh=True)
