"""One soak: a service of its own, warm-up, traffic, and the service at rest again."""

from __future__ import annotations

import asyncio
import json
import shutil
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tests.e2e.service import Service, wait_until
from tests.soak.traffic import Traffic
from tests.soak.vitals import Vitals, rss_slope

MAX_SLOPE_MIB = 1.0
MAX_MORE_DESCRIPTORS = 2
"""A connection that is just being closed, say."""
WARM_UP_SHARE = 0.2
QUIET_S = 2.0
ARGUMENTS = ["--served-model-name", "tiny", "--dtype", "float32", "--kv-cache-memory", "4MB", "--max-num-seqs", "16"]
"""Few blocks: requests wait and are preempted, and all of the cache's memory is in use after the warm-up."""


@dataclass(frozen=True)
class ProcessReport:
    """What became of one process."""

    name: str
    before: Vitals
    """At rest after the warm-up."""
    after: Vitals
    """At rest at the end."""
    slope_mib: float
    """For 1,000 requests."""

    def violations(self) -> list[str]:
        """What did not stay flat."""
        found = []
        if self.slope_mib >= MAX_SLOPE_MIB:
            found.append(f"{self.name} grew by {self.slope_mib:.2f} MiB for 1,000 requests")
        if self.after.descriptors > self.before.descriptors + MAX_MORE_DESCRIPTORS:
            found.append(f"{self.name} went from {self.before.descriptors} to {self.after.descriptors} descriptors")
        if self.after.threads > self.before.threads:
            found.append(f"{self.name} went from {self.before.threads} to {self.after.threads} threads")
        return found


@dataclass(frozen=True)
class SoakReport:
    """All that was seen after the warm-up."""

    outcomes: Counter[str]
    surprises: Counter[str]
    processes: list[ProcessReport]

    @property
    def requests(self) -> int:
        return self.outcomes.total()

    def violations(self) -> list[str]:
        """Empty when all went well."""
        surprises = [f"{count} x {text}" for text, count in self.surprises.most_common()]
        return surprises + [violation for process in self.processes for violation in process.violations()]


class Soak:
    """Runs once. `show` is told now and then how far it is."""

    def __init__(
        self, service: Service, *, clients: int, pause_s: float, seed: int, show: Callable[[str], None]
    ) -> None:
        assert service.gateway is not None
        assert service.model_server is not None
        self._pids = {"gateway": service.gateway.pid, "model server": service.model_server.pid}
        self._service = service
        self._traffic = [Traffic(service.url, clients, pause_s, seed + phase) for phase in range(2)]
        self._show = show
        self._samples: dict[str, list[Vitals]] = {name: [] for name in self._pids}

    def run(self, seconds: float) -> SoakReport:
        """A fifth of the time is warm-up. Raises AssertionError when the service does not come to rest."""
        warm_up, traffic = self._traffic
        self._phase(warm_up, seconds * WARM_UP_SHARE, "warm-up")
        before = self._at_rest(0)
        for samples in self._samples.values():
            samples.clear()
        self._phase(traffic, seconds * (1 - WARM_UP_SHARE), "soak")
        after = self._at_rest(traffic.asked)
        processes = [
            ProcessReport(name, before[name], after[name], rss_slope(samples))
            for name, samples in self._samples.items()
        ]
        return SoakReport(traffic.outcomes, warm_up.surprises + traffic.surprises, processes)

    def _phase(self, traffic: Traffic, seconds: float, name: str) -> None:
        ends_at = time.monotonic() + seconds
        asyncio.run(self._watched(traffic, lambda: time.monotonic() >= ends_at, name, every_s=min(10.0, seconds / 20)))

    async def _watched(self, traffic: Traffic, is_over: Callable[[], bool], name: str, every_s: float) -> None:
        running = asyncio.create_task(traffic.run(is_over))
        while not (await asyncio.wait([running], timeout=every_s))[0]:
            vitals = self._vitals(traffic.asked)
            for process, samples in self._samples.items():
                samples.append(vitals[process])
            sizes = ", ".join(f"{process} {seen.rss_mib:.1f} MiB" for process, seen in vitals.items())
            self._show(f"{name}: {traffic.asked} requests, {traffic.outcomes['surprises']} surprises; {sizes}")
        await running

    def _vitals(self, requests: int) -> dict[str, Vitals]:
        return {name: Vitals.of(pid, requests) for name, pid in self._pids.items()}

    def _at_rest(self, requests: int) -> dict[str, Vitals]:
        wait_until(self._service.all_free, 30.0, "every block free and no request open")
        time.sleep(QUIET_S)
        return self._vitals(requests)


def soak_service(model: Path, folder: Path) -> Service:
    """Of a copy of that tiny model in `folder`, where its logs go too. Not yet started."""
    copy = shutil.copytree(model, folder / "model")
    _split_words(copy / "tokenizer.json")
    return Service(folder, ["--model-uri", str(copy), *ARGUMENTS])


def _split_words(tokenizer: Path) -> None:
    """As real tokenizers do. Theirs keep the first 10,000 words that they see, and with a tiny one a prompt is one
    word: memory would grow by megabytes until then."""
    settings = json.loads(tokenizer.read_bytes())
    settings["pre_tokenizer"]["use_regex"] = True
    tokenizer.write_text(json.dumps(settings))
