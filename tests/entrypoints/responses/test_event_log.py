"""The events of a response in the background: what of them is kept, and what those who follow it get."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from vfastml.entrypoints.openai.responses.event_log import EventLog
from vfastml.entrypoints.openai.responses.log_stream import LogStream, log_stream
from vfastml.errors import InvalidRequestError

CREATED = {"type": "response.created"}
LONG = {"type": "response.created", "text": "x" * 50}


async def sent_by(stream: LogStream, before_each: Callable[[], Awaitable[None]] | None = None) -> bytes:
    sent: list[bytes] = []

    async def send(message: Any) -> None:
        if before_each is not None:
            await before_each()
        sent.append(message.get("body", b""))

    await stream({}, send, send)  # type: ignore[arg-type]
    return b"".join(sent)


async def test_a_log_has_the_last_of_the_events() -> None:
    log = EventLog(max_bytes=1000)
    for _ in range(100):
        log.add([LONG])
    log.close()
    assert 800 < log.num_bytes <= 1000
    assert not log.has(0)
    assert log.has(99)
    assert len(log.since(99)) == 1
    assert log.since(100) == []
    assert (await sent_by(LogStream(log, 99, 10.0))).count(b"event:") == 1


async def test_what_comes_together_is_kept_together() -> None:
    log = EventLog(max_bytes=10, max_unread_bytes=10)
    log.add([LONG] * 5)
    assert len(log.since(0)) == 5
    log.add([LONG] * 3)
    assert (log.has(4), log.has(5), len(log.since(5))) == (False, True, 3)


async def test_nothing_is_dropped_that_a_reader_has_not_sent() -> None:
    log = EventLog(max_bytes=10)
    stream = LogStream(log, 0, 10.0)
    sent: list[int] = []

    async def grow() -> None:
        if len(sent) < 20:
            sent.append(len(sent))
            log.add([LONG])
            log.add([LONG])
        else:
            log.close()

    assert (await sent_by(stream, grow)).count(b"event: response.created") == 40
    assert log.num_bytes < 300


async def test_nothing_is_kept_for_a_reader_that_is_gone() -> None:
    log = EventLog(max_bytes=10)
    stream = LogStream(log, 0, 10.0)
    log.add([LONG])
    log.add([LONG])
    assert log.has(0)
    del stream
    log.add([LONG])
    assert not log.has(1)


async def test_a_reader_left_behind_is_told() -> None:
    log = EventLog(max_bytes=10, max_unread_bytes=500)
    stream = LogStream(log, 2, 10.0)
    for _ in range(10):
        log.add([LONG])
    sent = await sent_by(stream)
    assert sent.startswith(b"event: error\n")
    error = json.loads(sent.split(b"data: ")[1])
    assert (error["type"], error["code"], error["sequence_number"]) == ("error", "events_dropped", 2)


async def test_what_comes_before_the_waiting_begins_is_not_missed() -> None:
    log = EventLog()
    waiting = asyncio.create_task(log.wait(0))
    log.add([CREATED])
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert waiting.done()


async def test_a_reader_ahead_waits_for_its_event() -> None:
    log = EventLog()
    sending = asyncio.create_task(sent_by(LogStream(log, 1, 10.0)))
    for _ in range(2):
        await asyncio.sleep(0)
        log.add([CREATED])
    log.close()
    assert (await sending).count(b"event:") == 1


async def test_comments_keep_a_silent_stream_alive() -> None:
    log = EventLog()
    sending = asyncio.create_task(sent_by(LogStream(log, 0, 0.01)))
    await asyncio.sleep(0.05)
    log.add([CREATED])
    log.close()
    sent = await sending
    assert sent.startswith(b": keep-alive\n\n")
    assert sent.endswith(b"\n\n")
    assert b"response.created" in sent


@pytest.mark.parametrize("number", ["1", "0"])
async def test_what_is_forgotten_is_refused(number: str) -> None:
    log = EventLog(max_bytes=150)
    for _ in range(10):
        log.add([CREATED])
    with pytest.raises(InvalidRequestError) as caught:
        log_stream(log, {"starting_after": number}, 10.0)
    assert caught.value.param == "starting_after"
