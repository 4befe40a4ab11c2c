from __future__ import annotations

import time

import msgspec
import pytest

from benchmarks.completion import LENGTH_WAYS, Asking, _Chunk, stream_completion
from benchmarks.http_exchange import ServerAddress
from benchmarks.prompts import Prompt
from benchmarks.records import RequestRecord
from tests.benchmarks.fake_server import FakeServer, serving

PROMPT = Prompt("one two three", 8)


async def ask(fake: FakeServer, endpoint: str = "completions", timeout_s: float = 20.0) -> RequestRecord:
    with serving(fake):
        asking = Asking(ServerAddress.parse(fake.url), endpoint, "fake", LENGTH_WAYS[0], timeout_s)
        return await stream_completion(asking, PROMPT, time.perf_counter())


@pytest.mark.parametrize("endpoint", ["completions", "chat"])
@pytest.mark.parametrize("line_end", ["\n", "\r\n"])
@pytest.mark.parametrize(("piece", "chunked"), [(1, True), (7, True), (10_000, True), (7, False)])
async def test_tokens_are_those_of_usage_however_the_stream_is_cut(
    endpoint: str, line_end: str, piece: int, chunked: bool
) -> None:
    record = await ask(FakeServer(line_end=line_end, piece=piece, chunked=chunked), endpoint)
    assert record.error is None
    assert (record.input_tokens, record.output_tokens, record.finish_reason) == (5 + 2 * 3, 8, "length")
    assert len(record.chunks_s) == 4  # two tokens each; the empty ones do not count
    assert 0 < record.chunks_s[0] <= record.chunks_s[-1] <= record.e2e_s
    assert not record.is_short


async def test_a_server_without_usage_leaves_the_tokens_open() -> None:
    record = await ask(FakeServer(usage="never"))
    assert (record.error, record.output_tokens, len(record.chunks_s)) == (None, None, 4)


@pytest.mark.parametrize(
    ("trouble", "said"),
    [
        ("error", "error in the stream: The model broke"),
        ("cut", "the connection was closed before the end of the answer"),
        ("unended", "the stream ended without [DONE] and without a finish reason"),
        ("status", "HTTP 500: out of order"),
    ],
)
async def test_what_went_wrong_is_in_the_record(trouble: str, said: str) -> None:
    record = await ask(FakeServer(trouble={0: trouble}))
    assert record.error == said
    assert record.output_tokens is None


async def test_a_server_that_stops_talking_is_given_up() -> None:
    record = await ask(FakeServer(trouble={0: "hang"}), timeout_s=0.3)
    assert record.error == "no end within 0.3 s"
    assert record.output_tokens is None


async def test_a_server_that_is_gone() -> None:
    asking = Asking(ServerAddress.parse("http://127.0.0.1:1"), "chat", "fake", LENGTH_WAYS[0], 5.0)
    record = await stream_completion(asking, PROMPT, time.perf_counter())
    assert record.error is not None
    assert record.error.startswith("cannot connect")


async def test_an_answer_that_ends_early_is_short() -> None:
    record = await ask(FakeServer(trouble={0: "short"}))
    assert (record.output_tokens, record.is_short, record.finish_reason) == (5, True, "stop")


async def test_an_answer_without_text_has_no_first_token() -> None:
    record = await ask(FakeServer(trouble={0: "silent"}))
    assert (record.error, record.ttft_s, record.tpot_s, record.output_tokens) == (None, None, None, 8)


@pytest.mark.parametrize("field", ["reasoning_content", "reasoning"])
def test_reasoning_is_text(field: str) -> None:
    chunk = msgspec.json.decode(b'{"choices":[{"delta":{"%b":"hm"}}]}' % field.encode(), type=_Chunk)
    assert chunk.choices is not None
    assert chunk.choices[0].says_something()


def test_what_is_asked() -> None:
    server = ServerAddress.parse("http://127.0.0.1:1")
    body = msgspec.json.decode(Asking(server, "chat", "m", "ignore_eos, min_tokens", 1.0).body(PROMPT, stream=True))
    assert body == {
        "model": "m",
        "messages": [{"role": "user", "content": "one two three"}],
        "max_tokens": 8,
        "temperature": 0,
        "stream": True,
        "stream_options": {"include_usage": True},
        "ignore_eos": True,
        "min_tokens": 8,
    }
