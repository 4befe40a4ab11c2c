"""Many streams at once, and how each of them ended."""

from __future__ import annotations

import asyncio
import json
import time
from dataclasses import dataclass
from typing import Any

import httpx

LONG: dict[str, Any] = {"model": "tiny", "prompt": "x", "max_tokens": 3000, "ignore_eos": True, "stream": True}
DONE = "[DONE]"


@dataclass(frozen=True)
class StreamEnd:
    """The last that a client has heard."""

    ended_s: float
    """On the clock of `time.monotonic`."""
    status: int
    event: Any
    """The last event of the stream, or the whole answer where there was none; DONE of a stream that is complete."""

    @property
    def error_code(self) -> str | None:
        """Of a stream, or an answer, that ended in an error."""
        return self.event["error"]["code"] if isinstance(self.event, dict) and "error" in self.event else None


async def stream_to_its_end(client: httpx.AsyncClient, **fields: Any) -> StreamEnd:
    """One completion of `LONG` with these fields. Raises httpx.TransportError where there was no end."""
    event: Any = None
    async with client.stream("POST", "/v1/completions", json=LONG | fields) as response:
        if response.status_code != 200:
            event = json.loads(await response.aread())
        else:
            async for line in response.aiter_lines():
                if line.startswith("data: "):
                    event = DONE if line == f"data: {DONE}" else json.loads(line[6:])
    return StreamEnd(time.monotonic(), response.status_code, event)


async def start_streams(client: httpx.AsyncClient, count: int, **fields: Any) -> list[asyncio.Task[StreamEnd]]:
    """They all run in the model server when this returns."""
    streams = [asyncio.create_task(stream_to_its_end(client, **fields)) for _ in range(count)]
    async with asyncio.timeout(30):
        while (await client.get("/load")).json()["running"] < count:
            await asyncio.sleep(0.02)
    return streams


def client_of(url: str) -> httpx.AsyncClient:
    """As many connections as are asked for."""
    return httpx.AsyncClient(base_url=url, timeout=60, limits=httpx.Limits(max_connections=None), trust_env=False)
