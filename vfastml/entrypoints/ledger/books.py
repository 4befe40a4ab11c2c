"""What is done with a ledger: entries are written, old ones pruned, sums told."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime

import msgspec
from sqlalchemy import bindparam, delete, func, literal_column, select
from sqlalchemy.dialects.sqlite import dialect as sqlite_dialect
from sqlalchemy.dialects.sqlite import insert
from sqlalchemy.exc import SQLAlchemyError

from vfastml.entrypoints.keys.quota import Period
from vfastml.entrypoints.ledger.entry import Entry
from vfastml.entrypoints.ledger.errors import LedgerError
from vfastml.entrypoints.ledger.ledger_file import connected, opened, opened_to_read, reason
from vfastml.entrypoints.ledger.schema import keys, requests, totals

PRUNED_AT_ONCE = 500
"""Rows: a transaction of a few milliseconds."""


@dataclass(frozen=True, slots=True)
class TokensUsed:
    """Of each key id that has used any, as booked at `at` (UTC)."""

    at: datetime
    day: Mapping[str, int] = field(default_factory=dict)
    month: Mapping[str, int] = field(default_factory=dict)
    ever: Mapping[str, int] = field(default_factory=dict)

    def of(self, key_id: str, per: Period, now: datetime) -> int:
        """Used in the period that `now` is in."""
        if per == "ever":
            return self.ever.get(key_id, 0)
        if per == "month":
            return self.month.get(key_id, 0) if _month(now) == _month(self.at) else 0
        return self.day.get(key_id, 0) if now.date() == self.at.date() else 0


class Books:
    """A ledger's file, which is made if it is not there. For one thread at a time. All methods raise LedgerError when
    the file cannot be used now; nothing of what they were to do is done then."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._engine = opened(path)
        self._connection: sqlite3.Connection | None = None
        self._reader = opened_to_read(path)

    def write(self, entries: Sequence[Entry]) -> None:
        """All of them, or none; of two with the same request id, the first."""
        # By the driver itself: SQLAlchemy would take four times as long as SQLite does, for all who wait for this.
        try:
            with self._open_connection() as connection:
                connection.execute("BEGIN IMMEDIATE")
                connection.execute(_INSERT, (msgspec.json.encode(entries).decode(),))
        except sqlite3.Error as error:
            raise self._failed(error) from error

    def prune(self, before: datetime) -> int:
        """Of the PRUNED_AT_ONCE requests that were written first, delete those that ended before that. Totals stay.
        Returns how many."""
        # The order of writing is that of time, within seconds: no index has to be kept for this.
        first = select(requests.c.id).order_by(requests.c.id).limit(PRUNED_AT_ONCE)
        is_old = requests.c.ended_ms < int(before.timestamp() * 1000)
        try:
            with self._engine.begin() as connection:
                return connection.execute(delete(requests).where(requests.c.id.in_(first), is_old)).rowcount
        except SQLAlchemyError as error:
            raise self._failed(error) from error

    def tokens_used(self, now: datetime) -> TokensUsed:
        """By all that is booked, by this process and others."""
        tokens = totals.c.prompt_tokens + totals.c.completion_tokens
        today = now.date().isoformat()
        of_month = (
            select(totals.c.key_id, func.sum(tokens), func.sum(tokens).filter(totals.c.day == today))
            .where(totals.c.day >= today[:8] + "01", totals.c.day <= today)
            .group_by(totals.c.key_id)
        )
        try:
            with self._reader.connect() as connection:
                month = connection.execute(of_month).all()
                ever = connection.execute(select(keys.c.key_id, keys.c.tokens)).all()
        except SQLAlchemyError as error:
            raise self._failed(error) from error
        return TokensUsed(
            now,
            day={key_id: of_day or 0 for key_id, _, of_day in month},
            month={key_id: of_month for key_id, of_month, _ in month},
            ever={key_id: of_all for key_id, of_all in ever},  # noqa: C416  # rows are no pairs to a type checker
        )

    def close(self) -> None:
        """Let go of the file, which is opened again when it is needed."""
        self._reader.dispose()
        self._engine.dispose()
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _open_connection(self) -> sqlite3.Connection:
        if self._connection is None:
            self._connection = connected(self._path)
        return self._connection

    def _failed(self, error: Exception) -> LedgerError:
        # What is wrong may be with these connections alone.
        self.close()
        return LedgerError(reason(error))


def utc_now() -> datetime:
    """By the wall clock, as books must be."""
    return datetime.now(UTC)


def _month(time: datetime) -> tuple[int, int]:
    return time.year, time.month


def _insert_all() -> str:
    """One statement, however many entries there are: SQLite lets go of Python's lock for each statement and each row
    of an executemany, and has to win it back from a busy event loop."""
    each = func.json_each(bindparam("entries")).table_valued("value").alias("entry")
    columns = [requests.c[name] for name in Entry.__struct_fields__]
    values = [func.json_extract(each.c.value, literal_column(f"'$[{place}]'")) for place in range(len(columns))]
    # Without a condition SQLite would take ON CONFLICT for that of a join.
    chosen = select(*values).select_from(each).where(literal_column("true"))
    statement = insert(requests).from_select(columns, chosen).on_conflict_do_nothing(index_elements=["request_id"])
    return str(statement.compile(dialect=sqlite_dialect()))


_INSERT = _insert_all()
