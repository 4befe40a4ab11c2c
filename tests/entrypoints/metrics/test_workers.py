"""One scrape of several gateway processes is their sum."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import httpx
import psutil

from tests.entrypoints.conftest import eventually
from tests.entrypoints.metrics.observed_service import KEY, ObservedService, observed_service

COUNT = 24
"""Connections, of which each of two workers has some, but for one time in eight million."""


def workers_of(service: ObservedService) -> list[psutil.Process]:
    return psutil.Process(service.running.process.pid).children()


def folder_of(worker: psutil.Process) -> Path:
    return Path(worker.environ()["PROMETHEUS_MULTIPROC_DIR"])


def ask(service: ObservedService, count: int) -> None:
    """Each on a connection of its own."""
    for _ in range(count):
        body = {"model": "talker", "prompt": "one two"}
        headers = {"authorization": f"Bearer {KEY}"}
        httpx.post(f"{service.running.url}/v1/completions", json=body, headers=headers, timeout=60).raise_for_status()


def answering(service: ObservedService) -> list[psutil.Process]:
    port = int(service.running.url.rpartition(":")[2])
    return [w for w in workers_of(service) if [c for c in w.net_connections("tcp") if c.laddr.port == port]]


def test_workers_are_added_up_and_a_dead_one_has_nothing_open() -> None:
    with observed_service("--workers", "2") as service:
        eventually(lambda: len(answering(service)) == 2)
        folder = folder_of(workers_of(service)[0])
        assert folder.stat().st_mode & 0o077 == 0
        ask(service, COUNT)
        for _ in range(COUNT):  # whichever is asked
            assert service.value("vfastml:request_success_total") == COUNT
        assert service.value("vfastml:generation_tokens_total") == 2 * COUNT
        assert service.value("vfastml:num_requests_running") == 3, "both see the same model server"
        assert service.value("vfastml:build_info") == 1
        assert service.value("process_resident_memory_bytes") > max(w.memory_info().rss for w in workers_of(service))
        assert len(list(folder.glob("counter_*.db"))) == 2

        victim = workers_of(service)[0]
        os.kill(victim.pid, signal.SIGKILL)
        eventually(lambda: not list(folder.glob(f"gauge_live*_{victim.pid}.db")))
        eventually(lambda: len(answering(service)) == 2)
        assert service.value("vfastml:request_success_total") == COUNT
    assert not folder.exists()
