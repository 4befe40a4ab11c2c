"""What the books say of usage, for people. Sums come from the totals: quick, and whole when rows are pruned."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date, datetime
from typing import Any, Literal, get_args

import msgspec
from sqlalchemy import ColumnElement, Row, Select, func, select
from sqlalchemy.exc import SQLAlchemyError

from vfastml.entrypoints.ledger.errors import LedgerError
from vfastml.entrypoints.ledger.ledger_file import opened_to_read, reason
from vfastml.entrypoints.ledger.schema import keys, totals

Grouping = Literal["key", "model", "day"]
GROUPINGS: tuple[Grouping, ...] = get_args(Grouping)

_COLUMNS: dict[Grouping, ColumnElement[str]] = {"key": keys.c.name, "model": totals.c.model, "day": totals.c.day}
_SUMMED = (
    totals.c.requests,
    totals.c.unfinished,
    totals.c.prompt_tokens,
    totals.c.completion_tokens,
    totals.c.cached_tokens,
    totals.c.reasoning_tokens,
)


class Usage(msgspec.Struct, frozen=True):
    """Of one group of requests; what it was not grouped by is None."""

    key: str | None
    """As it was called last; requests of keys that have had the same name are together."""
    model: str | None
    day: str | None
    """Of UTC."""
    requests: int
    unfinished: int
    """That were cancelled, or failed."""
    prompt_tokens: int
    completion_tokens: int
    cached_tokens: int
    reasoning_tokens: int


class KeyUsage(msgspec.Struct, frozen=True):
    """Of one key, as booked; tokens are those of prompts and answers together."""

    key_id: str
    name: str
    requests_today: int
    tokens_today: int
    tokens_month: int
    requests: int
    tokens: int

    def counts(self) -> dict[str, int]:
        """All of it that is a number, by name."""
        return {name: value for name, value in msgspec.structs.asdict(self).items() if isinstance(value, int)}


def usage(
    path: str,
    by: Sequence[Grouping],
    *,
    key: str | None = None,
    since: date | None = None,
    until: date | None = None,
) -> list[Usage]:
    """Sums for each group, in the order of `by`, of the days from `since` to `until`, both included. Raises
    LedgerError."""
    columns = [_COLUMNS[grouping] for grouping in by]
    query = (
        select(*columns, *(func.coalesce(func.sum(column), 0) for column in _SUMMED))
        .join_from(totals, keys, totals.c.key_id == keys.c.key_id)
        .where(*_wanted(key, since, until))
        .group_by(*columns)
        .order_by(*columns)
    )
    return [_usage(by, row) for row in _rows(path, query)]


def usage_of_keys(path: str, now: datetime) -> list[KeyUsage]:
    """Of every key in the books, as of that time in UTC, by name. Raises LedgerError."""
    today = now.date().isoformat()
    tokens = totals.c.prompt_tokens + totals.c.completion_tokens
    of_today = totals.c.day == today
    sums = (func.sum(totals.c.requests).filter(of_today), func.sum(tokens).filter(of_today), func.sum(tokens))
    of_month = (totals.c.key_id == keys.c.key_id) & (totals.c.day >= today[:8] + "01") & (totals.c.day <= today)
    query = (
        select(keys.c.key_id, keys.c.name, *(func.coalesce(each, 0) for each in sums), keys.c.requests, keys.c.tokens)
        .join_from(keys, totals, of_month, isouter=True)
        .group_by(keys.c.key_id)
        .order_by(keys.c.name, keys.c.key_id)
    )
    return [KeyUsage(*row) for row in _rows(path, query)]


def _wanted(key: str | None, since: date | None, until: date | None) -> list[ColumnElement[bool]]:
    wanted = []
    if key is not None:
        wanted.append(keys.c.name == key)
    if since is not None:
        wanted.append(totals.c.day >= since.isoformat())
    if until is not None:
        wanted.append(totals.c.day <= until.isoformat())
    return wanted


def _usage(by: Sequence[Grouping], row: Row[*tuple[Any, ...]]) -> Usage:
    names = (*by, *(column.name for column in _SUMMED))
    ungrouped: dict[str, Any] = dict.fromkeys(GROUPINGS)
    return Usage(**(ungrouped | dict(zip(names, row, strict=True))))


def _rows(path: str, query: Select[*tuple[Any, ...]]) -> Sequence[Row[*tuple[Any, ...]]]:
    engine = opened_to_read(path)
    try:
        with engine.connect() as connection:
            return connection.execute(query).all()
    except SQLAlchemyError as error:
        raise LedgerError(f"the ledger {path} cannot be read: {reason(error)}") from error
    finally:
        engine.dispose()
