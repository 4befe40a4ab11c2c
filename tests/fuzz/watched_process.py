"""A process of the service: whether it is still the same one, and what it has grown by."""

from __future__ import annotations

import subprocess

import psutil

MOST_GROWTH_BYTES = 64 << 20
_MOST_NEW_DESCRIPTORS = 20


class WatchedProcess:
    """Measured from the moment of its construction: make it when the process is warm."""

    def __init__(self, name: str, process: subprocess.Popen[bytes]) -> None:
        self.name = name
        self.pid = process.pid
        self._process = process
        self._seen = psutil.Process(process.pid)
        self.rss_before = self.rss = self._seen.memory_info().rss
        self.descriptors_before = self.descriptors = self._seen.num_fds()

    def is_alive(self) -> bool:
        return self._process.poll() is None

    def look(self) -> None:
        """Measure again."""
        if self.is_alive():
            self.rss, self.descriptors = self._seen.memory_info().rss, self._seen.num_fds()

    def problems(self) -> list[str]:
        """What is wrong with it, after the last look."""
        if not self.is_alive():
            return [f"the {self.name} has ended with status {self._process.returncode}"]
        found = []
        if self.rss - self.rss_before > MOST_GROWTH_BYTES:
            found.append(f"the {self.name} has grown by {(self.rss - self.rss_before) >> 20} MiB")
        if self.descriptors - self.descriptors_before > _MOST_NEW_DESCRIPTORS:
            found.append(f"the {self.name} has {self.descriptors} descriptors, {self.descriptors_before} before")
        return found
