"""The tables. Triggers keep the totals: whoever adds a row, and whatever breaks in the middle, they are its sums."""

from __future__ import annotations

from sqlalchemy import DDL, Column, Float, Integer, MetaData, Table, Text, event

APPLICATION_ID = 0x76664C67
"""Of SQLite's file header: a database is a ledger, and nothing else."""
VERSION = 1

metadata = MetaData()

requests = Table(
    "requests",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("request_id", Text, nullable=False, unique=True),
    Column("ended_ms", Integer, nullable=False),
    Column("key_id", Text, nullable=False),
    Column("key_name", Text, nullable=False),
    Column("model", Text, nullable=False),
    Column("kind", Text, nullable=False),
    Column("prompt_tokens", Integer, nullable=False),
    Column("completion_tokens", Integer, nullable=False),
    Column("cached_tokens", Integer, nullable=False),
    Column("reasoning_tokens", Integer, nullable=False),
    Column("outcome", Text, nullable=False),
    Column("error", Text),
    Column("queued_ms", Float),
    Column("first_token_ms", Float),
    Column("total_ms", Float, nullable=False),
)
"""One row for each request, the columns from `request_id` on as in Entry; `id` is the order of writing. Old ones are
pruned."""

totals = Table(
    "totals",
    metadata,
    Column("day", Text, primary_key=True),
    Column("key_id", Text, primary_key=True),
    Column("model", Text, primary_key=True),
    Column("requests", Integer, nullable=False),
    Column("unfinished", Integer, nullable=False),
    Column("prompt_tokens", Integer, nullable=False),
    Column("completion_tokens", Integer, nullable=False),
    Column("cached_tokens", Integer, nullable=False),
    Column("reasoning_tokens", Integer, nullable=False),
    sqlite_with_rowid=False,
)
"""By day (UTC, `2026-11-30`), key and model, for ever."""

keys = Table(
    "keys",
    metadata,
    Column("key_id", Text, primary_key=True),
    Column("name", Text, nullable=False),
    Column("requests", Integer, nullable=False),
    Column("tokens", Integer, nullable=False),
    sqlite_with_rowid=False,
)
"""What each key was called last, and all that it has ever used."""

_COUNT_TOTALS = """
CREATE TRIGGER count_totals AFTER INSERT ON requests BEGIN
    INSERT INTO totals VALUES (
        date(NEW.ended_ms / 1000, 'unixepoch'), NEW.key_id, NEW.model, 1, NEW.outcome <> 'finished',
        NEW.prompt_tokens, NEW.completion_tokens, NEW.cached_tokens, NEW.reasoning_tokens
    ) ON CONFLICT (day, key_id, model) DO UPDATE SET
        requests = requests + 1,
        unfinished = unfinished + excluded.unfinished,
        prompt_tokens = prompt_tokens + excluded.prompt_tokens,
        completion_tokens = completion_tokens + excluded.completion_tokens,
        cached_tokens = cached_tokens + excluded.cached_tokens,
        reasoning_tokens = reasoning_tokens + excluded.reasoning_tokens;
END
"""
_COUNT_KEYS = """
CREATE TRIGGER count_keys AFTER INSERT ON requests BEGIN
    INSERT INTO keys VALUES (NEW.key_id, NEW.key_name, 1, NEW.prompt_tokens + NEW.completion_tokens)
    ON CONFLICT (key_id) DO UPDATE SET
        name = excluded.name, requests = requests + 1, tokens = tokens + excluded.tokens;
END
"""

for _trigger in (_COUNT_TOTALS, _COUNT_KEYS):
    event.listen(metadata, "after_create", DDL(_trigger))  # type: ignore[no-untyped-call]
