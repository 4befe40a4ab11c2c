"""A gateway as a process, before a model server that speaks, and what its admin listener says."""

from __future__ import annotations

import contextlib
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field

import httpx
import openai
from prometheus_client.metrics_core import Metric
from prometheus_client.parser import text_string_to_metric_families

from tests.e2e.service import wait_until
from tests.entrypoints.running_gateway import PATIENCE_S, REPOSITORY, Running

KEY = "sk-secret-of-ann"
PROMPT = "confidential words of somebody"


@dataclass
class ObservedService:
    running: Running
    engine: str
    """The label of the model server."""
    usages: list[openai.types.CompletionUsage] = field(default_factory=list)
    """That clients were told of."""

    def __post_init__(self) -> None:
        assert self.running.process.stdout is not None
        found = re.search(r"(http://\S+)/metrics", self.running.process.stdout.readline())
        assert found, "it does not say where metrics are"
        self.admin_url = found.group(1)
        headers = {"authorization": f"Bearer {KEY}"}
        ready = f"{self.running.url}/readyz"
        wait_until(lambda: httpx.get(ready, headers=headers).status_code == 200, PATIENCE_S, "it is ready")
        self.client = openai.OpenAI(base_url=f"{self.running.url}/v1", api_key=KEY, max_retries=0, timeout=PATIENCE_S)

    def complete(self, prompt: str = PROMPT, model: str = "talker") -> None:
        answer = self.client.completions.create(model=model, prompt=prompt)
        assert answer.usage is not None
        self.usages.append(answer.usage)

    def stream(self, prompt: str = PROMPT) -> None:
        chunks = self.client.completions.create(
            model="talker", prompt=prompt, stream=True, stream_options={"include_usage": True}
        )
        self.usages += [chunk.usage for chunk in chunks if chunk.usage]

    def exposition(self) -> str:
        return httpx.get(f"{self.admin_url}/metrics").raise_for_status().text

    def scrape(self) -> dict[str, Metric]:
        """By the names in the exposition's TYPE lines."""
        return families_of(self.exposition())

    def value(self, name: str, **labels: str) -> float:
        """Of all samples with that name and these labels together."""
        samples = [sample for family in self.scrape().values() for sample in family.samples]
        wanted = labels.items()
        return sum(sample.value for sample in samples if sample.name == name and wanted <= sample.labels.items())


def families_of(exposition: str) -> dict[str, Metric]:
    return {family.name: family for family in text_string_to_metric_families(exposition)}


@contextlib.contextmanager
def observed_service(*flags: str) -> Iterator[ObservedService]:
    speaking = [sys.executable, "-m", "tests.entrypoints.metrics.speaking_server"]
    gateway = [sys.executable, "-m", "prebuilt_apps.openai.api_server", "--port", "0", "--api-key", KEY]
    with subprocess.Popen(speaking, stdout=subprocess.PIPE, text=True, cwd=REPOSITORY) as model_server:
        assert model_server.stdout is not None
        endpoint = model_server.stdout.readline().strip()
        running = Running([*gateway, "--model-server", endpoint, *flags])
        try:
            yield ObservedService(running, endpoint.removeprefix("tcp://"))
        finally:
            running.signal()
            running.process.communicate(timeout=PATIENCE_S)
            model_server.kill()


def play(service: ObservedService) -> None:
    """A little of everything that metrics tell of."""
    service.complete()
    service.stream()
    with contextlib.suppress(openai.InternalServerError):
        service.complete("broken")
    with contextlib.suppress(openai.RateLimitError):
        service.complete("full")
    with contextlib.suppress(openai.NotFoundError):
        service.complete(model="no-such-model")
    httpx.get(f"{service.running.url}/v1/models")
    httpx.get(f"{service.running.url}/nowhere", headers={"authorization": f"Bearer {KEY}"})
