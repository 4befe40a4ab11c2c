"""An admin listener that answers what a real one was heard to say, with counters that grow from look to look."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from tests.prebuilt_apps.scripted_server import ScriptedServer

RECORDED = Path(__file__).parent / "recorded"
_COUNTER = re.compile(r"^(\S+_(?:total|bucket|count|sum)(?:\{.*\})? )(\S+)$", re.MULTILINE)
_GROWING = ("preemptions", "prefix_hit_tokens", "prefix_query_tokens", "prompt_tokens", "generated_tokens")


class RecordedService(ScriptedServer):
    """Each look finds the recorded counters once more. `servers` are told of beside the recorded one."""

    def __init__(self) -> None:
        super().__init__()
        self._metrics = (RECORDED / "metrics.txt").read_text()
        self._load = json.loads((RECORDED / "load.json").read_text())
        self._looks = 0
        self.servers: list[dict[str, Any]] = []
        self.is_away = False

    def answer_to(self, path: str) -> tuple[int, bytes]:
        """As a busy gateway does, or, while it `is_away`, a proxy that does not find it."""
        if self.is_away:
            return 502, b"Bad Gateway"
        if path == "/metrics":
            self._looks += 1
            return 200, self._grown_metrics().encode()
        return (200, json.dumps(self._grown_load()).encode()) if path == "/load" else (404, b"")

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Who quits leaves in the middle of an answer."""

    def _grown_metrics(self) -> str:
        return _COUNTER.sub(lambda found: f"{found[1]}{float(found[2]) * self._looks}", self._metrics)

    def _grown_load(self) -> dict[str, Any]:
        return {**self._load, "servers": [*map(self._grown_server, self._load["servers"]), *self.servers]}

    def _grown_server(self, server: dict[str, Any]) -> dict[str, Any]:
        load = server["load"]
        grown = {name: load[name] * self._looks for name in _GROWING}
        return {**server, "elapsed_s": server["elapsed_s"] + self._looks, "load": {**load, **grown}}


def loading_server(endpoint: str = "tcp://127.0.0.1:6501") -> dict[str, Any]:
    """One that is not ready yet."""
    return {"endpoint": endpoint, "state": "loading", "phase": "loading weights", "progress": 0.4, "models": []}
