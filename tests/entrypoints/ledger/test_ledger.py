"""What is in the books when, and what happens when they cannot be written."""

from __future__ import annotations

import asyncio
import logging
import sqlite3
import subprocess
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from datetime import timedelta
from pathlib import Path

import pytest

from tests.engine.fake_server import until
from tests.entrypoints.ledger.observed import ANN, BOB, dispatched, finished, running, served
from tests.entrypoints.ledger.rows import entry, rows, summed, totals
from vfastml.engine.dispatch_replies import Failed, Output, Tokenized
from vfastml.engine.dispatch_requests import OneShotReq, TokenizeReq
from vfastml.engine.tenant import Tenant
from vfastml.entrypoints.ledger.books import Books, utc_now
from vfastml.entrypoints.ledger.errors import LedgerError
from vfastml.entrypoints.ledger.key_id import key_id_of
from vfastml.entrypoints.ledger.ledger import Ledger
from vfastml.errors import InvalidRequestError, RequestCancelledError, ServerLostError

PATIENCE_S = 60.0


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Another process writes for very long."""
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("BEGIN IMMEDIATE")
        yield


async def test_what_has_ended_is_in_the_books(path: Path) -> None:
    async with running(path) as ledger:
        task = finished(served(dispatched(ledger)), prompt=7, completion=2)
        assert (await asyncio.wait_for(task.get_result(), PATIENCE_S)).error is None
        [row] = rows(path)
    assert (row["request_id"], row["key_name"], row["model"], row["kind"]) == (
        task.request_id,
        "ann",
        "m",
        "text_generation",
    )
    tokens = [row[f"{kind}_tokens"] for kind in ("prompt", "completion", "cached", "reasoning")]
    assert tokens == [7, 2, 1, 1]
    assert (row["outcome"], row["error"], row["queued_ms"], row["first_token_ms"]) == ("finished", None, 250, 500)


async def test_nobody_sees_an_end_that_is_not_in_the_books(path: Path) -> None:
    async with running(path) as ledger:
        with locked(path):
            task = finished(served(dispatched(ledger)))
            await asyncio.sleep(0.1)
            assert not task.ended()
            assert rows(path) == []
        await until(task.ended, PATIENCE_S)
        assert len(rows(path)) == 1


async def test_what_was_served_of_unfinished_ones_is_booked(path: Path) -> None:
    async with running(path) as ledger:
        cancelled, lost, begun = (dispatched(ledger) for _ in range(3))
        served(cancelled, prompt=7, generated=3).fail(RequestCancelledError())
        served(lost, prompt=9, generated=1).fail(ServerLostError())
        served(begun, prompt=4, generated=0).fail(RequestCancelledError())
        await until(lambda: all(task.ended() for task in (cancelled, lost, begun)), PATIENCE_S)
        found = [(r["prompt_tokens"], r["completion_tokens"], r["outcome"], r["error"]) for r in rows(path)]
    assert found == [
        (7, 3, "cancelled", "RequestCancelledError"),
        (9, 1, "failed", "ServerLostError"),
        (4, 0, "cancelled", "RequestCancelledError"),
    ]
    assert [total["unfinished"] for total in totals(path)] == [3]


async def test_what_is_not_booked(path: Path) -> None:
    async with running(path) as ledger:
        refused = dispatched(ledger)
        refused.finish(Failed.of(refused.request_id, InvalidRequestError()))
        counted = dispatched(ledger, TokenizeReq(request_id="count", prompt="x"))
        counted.finish(Tokenized("count", [1, 2], 512))
        failed = dispatched(ledger, OneShotReq(request_id="failed"))
        failed.finish(Failed.of("failed", InvalidRequestError()))
        assert all(task.ended() for task in (refused, counted, failed)), "they wait for nothing"
        answered = dispatched(ledger, OneShotReq(request_id="answered"))
        answered.finish(Output("answered", 1))
        await until(answered.ended, PATIENCE_S)
        assert [(row["request_id"], row["kind"]) for row in rows(path)] == [("answered", "one_shot")]


async def test_a_key_is_known_by_what_does_not_give_it_away(path: Path) -> None:
    renamed = Tenant("anna", ANN.secret)
    async with running(path) as ledger:
        tasks = [finished(served(dispatched(ledger, tenant=tenant))) for tenant in (ANN, renamed, BOB, None)]
        await until(lambda: all(task.ended() for task in tasks), PATIENCE_S)
        ids = [row["key_id"] for row in rows(path)]
    assert ids == [key_id_of(ANN), key_id_of(ANN), key_id_of(BOB), ""]
    assert len({*ids}) == 3
    assert len(key_id_of(ANN)) == 16
    assert not gives_away(path, ANN)


def gives_away(path: Path, tenant: Tenant) -> bool:
    content = path.read_bytes()
    return tenant.secret in content or tenant.secret.hex().encode() in content


async def test_many_at_a_time_share_transactions(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: list[int] = []
    write = Books.write

    def counted_write(books: Books, entries: list) -> None:
        sizes.append(len(entries))
        write(books, entries)

    monkeypatch.setattr(Books, "write", counted_write)
    async with running(path) as ledger:
        tasks = [finished(served(dispatched(ledger))) for _ in range(500)]
        await until(lambda: all(task.ended() for task in tasks), PATIENCE_S)
    assert sum(sizes) == 500
    assert len(sizes) < 100
    assert totals(path) == summed(path)
    assert [total["requests"] for total in totals(path)] == [500]


async def test_the_end_writes_what_waits(path: Path) -> None:
    async with running(path) as ledger:
        tasks = [finished(served(dispatched(ledger))) for _ in range(50)]
    assert len(rows(path)) == 50
    await until(lambda: all(task.ended() for task in tasks), PATIENCE_S)
    assert [file.name for file in path.parent.iterdir()] == [path.name], "and leaves one file"


async def test_answers_are_not_held_for_long(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async with running(path, patience_s=0.3) as ledger:
        with locked(path):
            first = finished(served(dispatched(ledger)))
            await until(first.ended, PATIENCE_S)
            assert rows(path) == []
            next_one = finished(served(dispatched(ledger)))
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            assert next_one.ended(), "others do not wait as long again"
            await until(lambda: "database is locked" in caplog.text, PATIENCE_S)
        await until(lambda: len(ledger._held) == 0, PATIENCE_S)
        assert len(rows(path)) == 2
        with locked(path):
            again = finished(served(dispatched(ledger)))
            await asyncio.sleep(0.05)
            assert not again.ended(), "it works again, so it is waited for"
    assert "answers do not wait for it" in caplog.text
    assert len(rows(path)) == 3


async def test_memory_for_what_cannot_be_written_is_bounded(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async with running(path, patience_s=0.2, most_kept=3) as ledger:
        with locked(path):
            tasks = [finished(served(dispatched(ledger))) for _ in range(5)]
            await until(lambda: all(task.ended() for task in tasks), PATIENCE_S)
        await until(lambda: len(rows(path)) == 3, PATIENCE_S)
        assert "memory for it is full" in caplog.text
        await until((task := finished(served(dispatched(ledger)))).ended, PATIENCE_S)
    assert rows(path)[-1]["request_id"] == task.request_id


async def test_an_end_that_cannot_write_says_how_much_is_missing(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    ledger = Ledger(str(path), patience_s=0.2)
    ledger.start()
    with locked(path):
        tasks = [finished(served(dispatched(ledger))) for _ in range(2)]
        await asyncio.wait_for(ledger.close(), PATIENCE_S)
        await until(lambda: all(task.ended() for task in tasks), PATIENCE_S)
    assert "2 requests are missing" in caplog.text
    assert [record.levelno for record in caplog.records if "missing" in record.message] == [logging.ERROR]


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "small"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=1m", "none", str(folder)]
    if subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("only root can mount a file system")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


def fill(file: Path) -> None:
    with file.open("wb", buffering=0) as filler, suppress(OSError):
        while True:
            filler.write(bytes(4096))


async def test_a_full_disk_loses_nothing_that_there_is_memory_for(
    small_disk: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path, filler = small_disk / "ledger.db", small_disk / "filler"
    async with running(path, patience_s=0.3) as ledger:
        await until(finished(served(dispatched(ledger))).ended, PATIENCE_S)
        fill(filler)
        # More than what is left of the pages that the file has already.
        tasks = [finished(served(dispatched(ledger))) for _ in range(400)]
        await until(lambda: all(task.ended() for task in tasks), PATIENCE_S)
        assert "database or disk is full" in caplog.text
        filler.unlink()
        await until(lambda: len(rows(path)) == 401, PATIENCE_S)
    assert totals(path) == summed(path)


def test_a_disk_that_cannot_be_written(small_disk: Path) -> None:
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    with pytest.raises(LedgerError, match=r"cannot be opened: Read-only file system"):
        Ledger(str(small_disk / "ledger.db"))


async def test_old_rows_are_pruned_at_the_start(path: Path) -> None:
    books = Books(str(path))
    old = utc_now() - timedelta(days=8)
    books.write([entry(ended_ms=int(old.timestamp() * 1000)) for _ in range(1200)])
    books.write([entry(ended_ms=int(utc_now().timestamp() * 1000))])
    books.close()
    before = totals(path)
    async with running(path, keep_days=7):
        await until(lambda: len(rows(path)) == 1, PATIENCE_S)
    assert totals(path) == before


async def test_what_keys_have_used_by_now(path: Path) -> None:
    async with running(path, wall_clock=lambda: utc_now().timestamp()) as ledger:
        tasks = [finished(served(dispatched(ledger, tenant=tenant))) for tenant in (ANN, ANN, BOB)]
        await until(lambda: all(task.ended() for task in tasks), PATIENCE_S)
        found = await ledger.usage_of_keys()
    assert [(key.name, key.key_id, key.requests, key.tokens, key.tokens_month) for key in found] == [
        ("ann", key_id_of(ANN), 2, 18, 18),
        ("bob", key_id_of(BOB), 1, 9, 9),
    ]


async def test_what_nobody_has_thought_of_does_not_end_the_writing(
    path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async with running(path) as ledger:
        with monkeypatch.context() as broken:
            broken.setattr(Books, "write", lambda *_: 1 / 0)
            task = finished(served(dispatched(ledger)))
            await until(lambda: "ZeroDivisionError" in caplog.text, PATIENCE_S)
        await until(task.ended, PATIENCE_S)
        assert len(rows(path)) == 1
