"""`vfastml top` at a real service: what it shows is what clients have seen."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from prebuilt_apps.cli.top import view
from prebuilt_apps.cli.top.admin_client import AdminClient
from prebuilt_apps.cli.top.rates import Window
from tests.e2e.service import Service, free_port, running

NUM_REQUESTS, NUM_TOKENS = 5, 8


@pytest.fixture(scope="module")
def admin_url() -> str:
    """Of the service's gateway."""
    return f"http://127.0.0.1:{free_port()}"


@pytest.fixture(scope="module")
def service(
    tiny_models: dict[str, Path], tmp_path_factory: pytest.TempPathFactory, admin_url: str
) -> Iterator[Service]:
    """A tiny model, and an admin listener."""
    model = ["--model-uri", str(tiny_models["llama"]), "--served-model-name", "tiny", "--dtype", "float32"]
    gateway = ["--admin-port", admin_url.rpartition(":")[2]]
    log_folder = tmp_path_factory.mktemp("top")
    with running(Service(log_folder, [*model, "--kv-cache-memory", "20MB"], gateway)) as service:
        yield service


async def test_what_it_counts(service: Service, admin_url: str) -> None:
    window = Window(600)
    async with AdminClient(admin_url) as client:
        window.add(await client.snapshot())
        for _ in range(NUM_REQUESTS):
            fields = {"messages": [{"role": "user", "content": "Hello"}], "ignore_eos": True}
            assert service.chat(model="tiny", max_tokens=NUM_TOKENS, **fields).status_code == 200
        # The beat that tells of the last tokens comes when it comes.
        while window.increase("load:generated_tokens") < NUM_REQUESTS * NUM_TOKENS:
            window.add(await client.snapshot())
    assert window.increase("load:generated_tokens") == NUM_REQUESTS * NUM_TOKENS
    assert window.increase("request_success_total") == NUM_REQUESTS
    for _, name in view.LATENCIES:
        assert window.increase(f"{name}_count") == NUM_REQUESTS, name
    shown = view.view_of(admin_url, window)
    assert (shown.ready, shown.totals.held, shown.totals.errors_per_s) == (True, 0, 0)
    assert shown.version
    assert shown.up_s
    assert all(row.p50 is not None for row in shown.latencies)


def test_the_command(service: Service, admin_url: str) -> None:
    command = [sys.executable, "-m", "prebuilt_apps.cli", "top", "--url", admin_url, "--format", "json"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    [server] = json.loads(done.stdout)["servers"]
    assert (server["model"], server["state"], server["running"], server["kv_share"]) == ("tiny", "ready", 0, 0.0)


def test_the_port_of_users(service: Service, admin_url: str) -> None:
    command = [sys.executable, "-m", "prebuilt_apps.cli", "top", "--url", service.url, "--once"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 1
    assert done.stderr.startswith(f"vfastml top: {service.url} is where a gateway answers its users")
