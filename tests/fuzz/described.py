"""`python -m tests.fuzz.described --seconds 600`: requests that schemathesis makes from our own OpenAPI document.

Right and wrong ones in turn, for a service of processes with a tiny model. Exit status 1 if an answer is no sound one,
or if the service is not the same afterwards.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import schemathesis
from hypothesis import HealthCheck, Phase, given, seed, settings

from tests.e2e.service import Service, running
from tests.fuzz.http_reply import HttpReply

_ROUND = 20
_PATIENCE_S = 120.0


def main() -> int:
    """The exit status."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz.described")
    parser.add_argument("--seconds", type=int, default=600, help="how long to go on (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=1, help="the same one makes the same requests")
    options = parser.parse_args()
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    os.environ.setdefault("VFASTML_MEASURE_LIMITS", "never")
    from tests.tiny_models import save_tiny_models  # torch: not for --help

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with running(Service.of_tiny_model(folder, save_tiny_models(folder / "models")["llama"])) as service:
            counts, wrong = run(service, options.seconds, options.seed)
            alive = service.gateway is not None and service.gateway.poll() is None
            alive = alive and service.model_server is not None and service.model_server.poll() is None
        if "Traceback" in service.log("api_server") + service.log("model_server"):
            wrong.append("there is a traceback in a log")
    if not alive:
        wrong.append("a process has ended")
    print(f"{counts.total():,} requests: {dict(sorted(counts.items()))}")
    print(*(wrong[:20] or ["Nothing is wrong."]), sep="\n")
    return 1 if wrong else 0


def run(service: Service, seconds: float, first: int) -> tuple[Counter[int], list[str]]:
    """Statuses, and what was wrong."""
    schema = schemathesis.openapi.from_url(f"{service.url}/openapi.json")
    operations = [result.ok() for result in schema.get_all_operations()]
    counts: Counter[int] = Counter()
    wrong: list[str] = []
    until, number = time.monotonic() + seconds, first
    while time.monotonic() < until:
        for operation in operations:
            number += 1
            _round(operation, number, counts, wrong, until)
    return counts, wrong


def _round(operation: object, number: int, counts: Counter[int], wrong: list[str], until: float) -> None:
    mode = schemathesis.GenerationMode.NEGATIVE if number % 2 else schemathesis.GenerationMode.POSITIVE

    @seed(number)
    @settings(
        max_examples=_ROUND,
        deadline=None,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(operation.as_strategy(generation_mode=mode))  # type: ignore[attr-defined]
    def call(case: schemathesis.Case) -> None:
        if time.monotonic() > until:
            return
        response = case.call(headers={"x-request-timeout": "0.3"}, timeout=_PATIENCE_S)
        counts[response.status_code] += 1
        problem = HttpReply(response.status_code, bytearray(response.content), is_whole=True).problem()
        # A deadline is one of ours.
        if problem is not None and response.status_code != 504:
            wrong.append(f"{case.method} {case.path}: {problem}: {response.text[:300]}")

    try:
        call()
    except Exception as error:
        # Nothing wrong can be said to a route without parameters.
        if "Unsatisfiable" not in type(error).__name__ and "generate" not in str(error):
            wrong.append(f"{operation}: {error!r}"[:400])


if __name__ == "__main__":
    sys.exit(main())
