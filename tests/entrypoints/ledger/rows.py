"""Entries to write, and what is in a ledger then, read by Python's own sqlite3."""

from __future__ import annotations

import itertools
import sqlite3
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec

from vfastml.entrypoints.ledger.entry import Entry

_numbers = itertools.count()
NOON = datetime(2026, 11, 30, 12, tzinfo=UTC)


def entry(**changes: Any) -> Entry:
    """A new one, of another request."""
    plain = Entry(
        request_id=f"chatcmpl-{next(_numbers)}",
        ended_ms=int(NOON.timestamp() * 1000),
        key_id="0011223344556677",
        key_name="ann",
        model="m",
        kind="text_generation",
        prompt_tokens=10,
        completion_tokens=5,
        cached_tokens=2,
        reasoning_tokens=1,
        outcome="finished",
        error=None,
        queued_ms=0.5,
        first_token_ms=1.5,
        total_ms=20.25,
    )
    return msgspec.structs.replace(plain, **changes)


def rows(path: Path, query: str = "SELECT * FROM requests ORDER BY id") -> list[dict[str, Any]]:
    with closing(sqlite3.connect(path)) as connection:
        connection.row_factory = sqlite3.Row
        return [dict(row) for row in connection.execute(query)]


def summed(path: Path) -> list[dict[str, Any]]:
    """What the totals have to be, as long as nothing was pruned."""
    return rows(
        path,
        "SELECT date(ended_ms / 1000, 'unixepoch') AS day, key_id, model, count(*) AS requests,"
        " sum(outcome <> 'finished') AS unfinished, sum(prompt_tokens) AS prompt_tokens,"
        " sum(completion_tokens) AS completion_tokens, sum(cached_tokens) AS cached_tokens,"
        " sum(reasoning_tokens) AS reasoning_tokens FROM requests GROUP BY 1, 2, 3 ORDER BY 1, 2, 3",
    )


def totals(path: Path) -> list[dict[str, Any]]:
    return rows(path, "SELECT * FROM totals ORDER BY day, key_id, model")
