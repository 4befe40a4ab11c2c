"""The ledger's file: what is written, once, and what is refused."""

from __future__ import annotations

import os
import sqlite3
import stat
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec
import pytest

from tests.entrypoints.ledger.rows import NOON, entry, rows, summed, totals
from vfastml.entrypoints.ledger.books import PRUNED_AT_ONCE, Books
from vfastml.entrypoints.ledger.errors import LedgerError
from vfastml.entrypoints.ledger.ledger_file import opened_to_read
from vfastml.entrypoints.ledger.schema import VERSION


def test_an_entry_is_a_row(path: Path) -> None:
    written = entry(outcome="failed", error="ServerLostError", queued_ms=None)
    Books(str(path)).write([written])
    [row] = rows(path)
    assert row.pop("id") == 1
    assert row == msgspec.structs.asdict(written)


def test_a_request_is_booked_once_and_counted_once(path: Path) -> None:
    books, first = Books(str(path)), entry()
    books.write([first, entry(), first])
    books.write([msgspec.structs.replace(first, prompt_tokens=999), entry(outcome="cancelled")])
    assert len(rows(path)) == 3
    [total] = totals(path)
    assert (total["requests"], total["unfinished"], total["prompt_tokens"]) == (3, 1, 30)
    assert totals(path) == summed(path)


def test_names_that_look_like_sql_or_json(path: Path) -> None:
    written = [entry(key_name="a'; DROP TABLE requests; --"), entry(model='"}],[\\u0000'), entry(model="é\u2028😀")]
    Books(str(path)).write(written)
    assert [(row["key_name"], row["model"]) for row in rows(path)] == [(e.key_name, e.model) for e in written]


def test_a_key_keeps_its_books_under_a_new_name(path: Path) -> None:
    books = Books(str(path))
    books.write([entry(key_name="ann")])
    books.write([entry(key_name="anna")])
    [key] = rows(path, "SELECT * FROM keys")
    assert (key["name"], key["requests"], key["tokens"]) == ("anna", 2, 30)


def test_tokens_used_by_period(path: Path) -> None:
    books = Books(str(path))
    days_ago = {0: 1, 1: 10, 29: 100, 40: 1000}  # of 30 November
    for days, tokens in days_ago.items():
        ended_ms = int((NOON - timedelta(days=days)).timestamp() * 1000)
        books.write([entry(ended_ms=ended_ms, prompt_tokens=tokens, completion_tokens=0)])
    used, key_id = books.tokens_used(NOON), entry().key_id
    assert [used.of(key_id, per, NOON) for per in ("day", "month", "ever")] == [1, 111, 1111]
    assert [used.of("another", per, NOON) for per in ("day", "month", "ever")] == [0, 0, 0]
    midnight = datetime(2026, 12, 1, tzinfo=UTC)
    assert [used.of(key_id, per, midnight) for per in ("day", "month", "ever")] == [0, 0, 1111]
    before_midnight = midnight - timedelta(microseconds=1)
    assert [used.of(key_id, per, before_midnight) for per in ("day", "month", "ever")] == [1, 111, 1111]


def test_pruning_takes_old_rows_in_pieces_and_no_totals(path: Path) -> None:
    books = Books(str(path))
    old_ms = int((NOON - timedelta(days=91)).timestamp() * 1000)
    books.write([entry(ended_ms=old_ms) for _ in range(PRUNED_AT_ONCE + 7)])
    books.write([entry() for _ in range(3)])
    before = totals(path)
    assert [books.prune(NOON - timedelta(days=90)) for _ in range(3)] == [PRUNED_AT_ONCE, 7, 0]
    assert len(rows(path)) == 3
    assert totals(path) == before


def test_the_file_is_the_owners_alone(path: Path) -> None:
    before = os.umask(0)
    try:
        books = Books(str(path))
        books.write([entry()])
        modes = {file.name: stat.S_IMODE(file.stat().st_mode) for file in path.parent.iterdir()}
    finally:
        os.umask(before)
    assert modes == dict.fromkeys(("ledger.db", "ledger.db-wal", "ledger.db-shm"), 0o600)
    books.close()


def test_a_name_that_is_no_address(tmp_path: Path) -> None:
    path = tmp_path / "a ?#%20&mode=memory.db"
    Books(str(path)).write([entry()])
    assert len(rows(path)) == 1


def test_what_is_no_ledger_is_left_alone(path: Path) -> None:
    path.write_bytes(b"The diary of a nobody. " * 100)
    with pytest.raises(LedgerError, match="file is not a database"):
        Books(str(path))
    assert path.read_bytes() == b"The diary of a nobody. " * 100


def test_another_programs_database_is_left_alone(path: Path) -> None:
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE requests (id INTEGER)")
    before = path.read_bytes()
    with pytest.raises(LedgerError, match=r"ledger\.db is not a usage ledger$"):
        Books(str(path))
    assert path.read_bytes() == before


def test_a_newer_version_is_refused(path: Path) -> None:
    Books(str(path)).close()
    with closing(sqlite3.connect(path)) as connection:
        connection.execute(f"PRAGMA user_version = {VERSION + 1}")
    for attempt in (Books, opened_to_read):
        with pytest.raises(LedgerError, match=f"of version {VERSION + 1}, and this program knows {VERSION}"):
            attempt(str(path))


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(LedgerError, match="cannot be opened: No such file or directory"):
        Books(str(tmp_path / "nowhere" / "ledger.db"))
    with pytest.raises(LedgerError, match="cannot be read: unable to open database file"):
        opened_to_read(str(tmp_path / "ledger.db"))
    assert list(tmp_path.iterdir()) == [], "looking makes no file"


def test_a_file_that_was_left_empty_becomes_a_ledger(path: Path) -> None:
    path.touch()
    Books(str(path)).write([entry()])
    Books(str(path)).write([entry()])
    assert len(rows(path)) == 2


def test_many_may_make_it_at_once(path: Path) -> None:
    together = threading.Barrier(6)

    def begin() -> None:
        together.wait()
        Books(str(path)).write([entry()])

    with ThreadPoolExecutor(6) as pool:
        for done in [pool.submit(begin) for _ in range(6)]:
            done.result()
    assert len(rows(path)) == 6
    assert totals(path) == summed(path)
