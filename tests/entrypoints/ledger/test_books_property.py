"""Whatever is written in whatever pieces, and wherever a process dies: the totals are the sums of the rows."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

import msgspec
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.entrypoints.ledger.rows import entry, rows, summed, totals
from tests.entrypoints.running_gateway import REPOSITORY
from vfastml.entrypoints.ledger.books import Books
from vfastml.entrypoints.ledger.entry import Entry

_COUNTS = st.integers(0, 1 << 40)
_NAMES = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=12)
ENTRIES = st.builds(
    entry,
    request_id=st.integers(0, 40).map("r{}".format),
    ended_ms=st.integers(0, 4_000_000_000_000),
    key_id=st.sampled_from(["", "aa", "bb"]),
    key_name=_NAMES,
    model=_NAMES,
    prompt_tokens=_COUNTS,
    completion_tokens=_COUNTS,
    cached_tokens=_COUNTS,
    reasoning_tokens=_COUNTS,
    outcome=st.sampled_from(["finished", "cancelled", "failed"]),
    error=st.none() | st.just("ServerLostError"),
)


def first_of_each(entries: list[Entry]) -> dict[str, Entry]:
    found: dict[str, Entry] = {}
    for each in entries:
        found.setdefault(each.request_id, each)
    return found


@settings(max_examples=25, deadline=None)
@given(st.lists(st.lists(ENTRIES, max_size=8), max_size=8))
def test_totals_are_the_sums_of_the_rows(groups: list[list[Entry]]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "ledger.db"
        books = Books(str(path))
        for group in groups:
            books.write(group)
        written = {row.pop("request_id"): row for row in rows(path)}
        assert totals(path) == summed(path)
        books.close()
    expected = first_of_each([each for group in groups for each in group])
    assert written.keys() == expected.keys()
    for request_id, row in written.items():
        assert {"id": row["id"], "request_id": request_id, **row} == {
            "id": row["id"],
            **msgspec.structs.asdict(expected[request_id]),
        }


_DYING_WRITER = """
import os, sys, threading, time
import msgspec
from vfastml.entrypoints.ledger.books import Books
from vfastml.entrypoints.ledger.entry import Entry
groups = msgspec.json.decode(sys.stdin.read(), type=list[list[Entry]])
# Of the middle of a transaction or of a quiet moment: as the clock will have it.
threading.Timer(float(sys.argv[2]), os.kill, (os.getpid(), 9)).start()
books = Books(sys.argv[1])
for number, group in enumerate(groups):
    books.write(group)
    os.write(1, f"{number}\\n".encode())
time.sleep(60)
"""


@settings(max_examples=4, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(st.lists(ENTRIES, min_size=1, max_size=30), min_size=30, max_size=60), st.floats(0.0, 0.08))
def test_what_was_written_outlives_the_writer(groups: list[list[Entry]], lifetime_s: float) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "ledger.db"
        Books(str(path)).close()
        run = subprocess.run(
            [sys.executable, "-c", _DYING_WRITER, str(path), str(lifetime_s)],
            input=msgspec.json.encode(groups),
            stdout=subprocess.PIPE,
            cwd=REPOSITORY,
            check=False,
            timeout=60,
        )
        assert run.returncode == -9
        done = len(run.stdout.split())
        booked = {row["request_id"] for row in rows(path)}
        assert totals(path) == summed(path)
        # The one after the last that it told of may have been committed as well.
        assert booked in [
            set(first_of_each([each for group in groups[:count] for each in group])) for count in (done, done + 1)
        ]
        Books(str(path)).write([entry()])  # goes on
