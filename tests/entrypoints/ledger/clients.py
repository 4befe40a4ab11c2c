"""Clients in a loop, and every usage that one of them has read."""

from __future__ import annotations

import json
import random
import threading

import httpx

Read = dict[str, tuple[int, int, int]]
"""By the request's id, which is the answer's and its first prompt's: tokens of prompt, completion and cache."""


class Clients:
    """So many threads that ask without a pause, whole and streamed answers in turn, whether anybody answers or not."""

    def __init__(self, url: str, count: int) -> None:
        self.read: Read = {}
        self._url = url
        self._stopping = threading.Event()
        self._threads = [threading.Thread(target=self._ask, args=(number,)) for number in range(count)]
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        self._stopping.set()
        for thread in self._threads:
            thread.join()

    def _ask(self, number: int) -> None:
        numbers = random.Random(number)
        with httpx.Client(base_url=self._url, timeout=30, trust_env=False) as client:
            while not self._stopping.is_set():
                try:
                    self._ask_once(client, numbers)
                except httpx.TransportError:
                    self._stopping.wait(0.05)

    def _ask_once(self, client: httpx.Client, numbers: random.Random) -> None:
        body = {"prompt": "word " * numbers.randint(1, 40), "max_tokens": numbers.randint(1, 8)}
        if numbers.random() < 0.5:
            response = client.post("/v1/completions", json=body)
            if response.is_success:
                self._note(response.json())
            return
        body |= {"stream": True, "stream_options": {"include_usage": True}}
        with client.stream("POST", "/v1/completions", json=body) as response:
            for line in response.iter_lines():
                if '"usage":{' in line:
                    self._note(json.loads(line.removeprefix("data: ")))

    def _note(self, answer: dict) -> None:
        usage = answer["usage"]
        cached = usage["prompt_tokens_details"]["cached_tokens"]
        self.read[f"{answer['id']}-0"] = (usage["prompt_tokens"], usage["completion_tokens"], cached)
