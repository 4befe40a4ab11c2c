"""Makes top.svg: `python docs/draw_top.py [SECONDS]`. A real service with the built-in model, on the default ports, is
kept busy by clients with two keys for so long, and `vfastml top` itself looks at it, at a screen in memory."""

from __future__ import annotations

import asyncio
import contextlib
import random
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import httpx

from prebuilt_apps.cli.service_error import ServiceError
from prebuilt_apps.cli.top.admin_client import AdminClient
from prebuilt_apps.cli.top.app import TopApp
from prebuilt_apps.cli.top.rates import Snapshot

PICTURE = Path(__file__).parent / "top.svg"
USERS, OPERATORS = "http://127.0.0.1:8080", "http://127.0.0.1:8081"
SIZE = (110, 24)
KEYS = ("key-of-ann-1", "key-of-ann-1", "key-of-bob-2")
"""Each client has one of these in turn."""
CLIENTS = 12
RULES = "You answer briefly and to the point, in plain words, without lists, and in the language of the question. " * 2
QUESTIONS = (
    "What is the capital of France?",
    "Tell me about cats.",
    "Write a poem about rain.",
    "Why is the sky blue?",
)


@contextlib.contextmanager
def service() -> Iterator[None]:
    """Gateway and model server."""
    with tempfile.NamedTemporaryFile("w", suffix=".keys") as keys:
        keys.write("\n".join(sorted(set(KEYS))))
        keys.flush()
        process = subprocess.Popen([sys.executable, "-m", "prebuilt_apps.openai", "--api-key-file", keys.name])
        try:
            yield
        finally:
            process.terminate()
            process.wait(60)


async def ask(http: httpx.AsyncClient, key: str, chance: random.Random) -> None:
    """One question, and its whole answer."""
    messages = [{"role": "system", "content": RULES}, {"role": "user", "content": chance.choice(QUESTIONS)}]
    body = {"messages": messages, "max_tokens": chance.randint(16, 64), "stream": True}
    headers = {"authorization": f"Bearer {key}"}
    async with http.stream("POST", "/v1/chat/completions", json=body, headers=headers) as response:
        await response.aread()


async def ask_again_and_again(http: httpx.AsyncClient, place: int) -> None:
    """One client, with pauses."""
    chance = random.Random(place)
    while True:
        await ask(http, KEYS[place % len(KEYS)], chance)
        await asyncio.sleep(3 * chance.random())


async def first_snapshot(client: AdminClient) -> Snapshot:
    """Of a service that is ready."""
    while True:
        with contextlib.suppress(ServiceError):
            snapshot = await client.snapshot()
            if any(server.state == "live" for server in snapshot.load.servers):
                return snapshot
        await asyncio.sleep(0.5)


async def draw(seconds: float) -> None:
    """The picture after that time."""
    async with AdminClient(OPERATORS) as client, httpx.AsyncClient(base_url=USERS, timeout=300.0) as http:
        app = TopApp(client, await first_snapshot(client), 1.0)
        clients = [asyncio.create_task(ask_again_and_again(http, place)) for place in range(CLIENTS)]
        async with app.run_test(size=SIZE):
            await asyncio.sleep(seconds)
            PICTURE.write_text(app.export_screenshot())
        for task in clients:
            task.cancel()
        await asyncio.gather(*clients, return_exceptions=True)


def main(seconds: float = 150.0) -> None:
    """Writes the picture."""
    with service():
        asyncio.run(draw(seconds))


if __name__ == "__main__":
    main(*map(float, sys.argv[1:]))
