"""`vfastml usage`."""

from __future__ import annotations

import csv
import io
import json
import os
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from prebuilt_apps.cli.__main__ import main
from tests.entrypoints.ledger.rows import NOON, entry
from vfastml.entrypoints.ledger.books import Books


@pytest.fixture
def ledger(tmp_path: Path) -> str:
    """Two keys, two models, three days; a gateway has it open."""
    path = str(tmp_path / "ledger.db")
    books = Books(path)
    for days_ago in range(3):
        ended_ms = int((NOON - timedelta(days=days_ago)).timestamp() * 1000)
        books.write(
            [
                entry(ended_ms=ended_ms, key_name="ann", model="small", prompt_tokens=1000),
                entry(ended_ms=ended_ms, key_name="ann", model="large", outcome="failed"),
                entry(ended_ms=ended_ms, key_id="b", key_name="[red]bob[/red]\x1b[2J", model="small"),
            ]
        )
    return path


def used(capsys: Any, ledger: str, *arguments: str) -> list[dict[str, Any]]:
    assert main(["usage", "--ledger", ledger, "--format", "json", *arguments]) == 0
    return json.loads(capsys.readouterr().out)


def test_by_key(ledger: str, capsys: Any) -> None:
    bob, ann = used(capsys, ledger)
    assert bob["key"] == "[red]bob[/red]\x1b[2J"
    assert ann == {
        "key": "ann",
        "requests": 6,
        "unfinished": 3,
        "prompt_tokens": 3030,
        "completion_tokens": 30,
        "cached_tokens": 12,
        "reasoning_tokens": 6,
    }


def test_by_several_in_that_order(ledger: str, capsys: Any) -> None:
    found = used(capsys, ledger, "--by", "day", "--by", "model")
    assert [(line["day"], line["model"], line["requests"]) for line in found] == [
        (f"2026-11-{day}", model, requests) for day in (28, 29, 30) for model, requests in (("large", 1), ("small", 2))
    ]


def test_of_one_key_and_some_days(ledger: str, capsys: Any) -> None:
    arguments = ["--key", "ann", "--since", "2026-11-29", "--until", "2026-11-29", "--by", "model"]
    found = used(capsys, ledger, *arguments)
    assert [(line["model"], line["prompt_tokens"]) for line in found] == [("large", 10), ("small", 1000)]


@pytest.mark.parametrize("arguments", [["--since", "2026-12-01"], ["--key", "nobody"]])
def test_nothing_was_used(ledger: str, capsys: Any, arguments: list[str]) -> None:
    assert main(["usage", "--ledger", ledger, "--format", "json", *arguments]) == 0
    assert capsys.readouterr() == ("[]\n", "vfastml usage: nothing was used\n")


def test_no_word_of_a_table_is_broken_in_a_pipe(tmp_path: Path, capsys: Any) -> None:
    ledger, model = str(tmp_path / "ledger.db"), "organisation/" + "model-" * 40
    Books(ledger).write([entry(key_name="a" * 64, model=model, prompt_tokens=10**12)])
    assert main(["usage", "--ledger", ledger, "--by", "day", "--by", "key", "--by", "model"]) == 0
    _, line = capsys.readouterr().out.splitlines()
    assert line.split()[1:3] == ["a" * 64, model]
    assert "1,000,000,000,000" in line


def test_as_csv(ledger: str, capsys: Any) -> None:
    assert main(["usage", "--ledger", ledger, "--format", "csv", "--by", "model"]) == 0
    found = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    assert [(line["model"], line["prompt_tokens"]) for line in found] == [("large", "30"), ("small", "3030")]


def test_as_a_table_with_its_sum(ledger: str, capsys: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VFASTML_LEDGER", ledger)
    monkeypatch.setenv("COLUMNS", "20")  # which are the terminal's, and here is none
    assert main(["usage"]) == 0
    head, bob, ann, total = capsys.readouterr().out.splitlines()
    assert head.split() == ["KEY", "REQUESTS", "UNFINISHED", "PROMPT", "COMPLETION", "CACHED", "REASONING"]
    assert ann.split() == ["ann", "6", "3", "3,030", "30", "12", "6"]
    assert total.split() == ["SUM", "9", "3", "3,060", "45", "18", "9"]
    assert bob.startswith("[red]bob[/red]\\x1b[2J"), "a name is shown as it is, and drives no terminal"


def test_a_ledger_that_is_not_there(tmp_path: Path, capsys: Any) -> None:
    path = tmp_path / "ledger.db"
    assert main(["usage", "--ledger", str(path)]) == 1
    assert capsys.readouterr().err.endswith(f"the ledger {path} cannot be read: unable to open database file\n")
    assert not path.exists()


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        ([], "say with --ledger which file"),
        (["--ledger", "x", "--by", "hour"], "expected one of key, model, day"),
        (["--ledger", "x", "--since", "yesterday"], "expected a day, such as 2026-11-30"),
        (["--ledger", "x", "--since", "2026-11-30", "--until", "2026-11-29"], "--since is after --until"),
        (["--ledger", "x", "--format", "xml"], "invalid choice"),
    ],
)
def test_wrong_usage(arguments: list[str], complaint: str, capsys: Any) -> None:
    assert "VFASTML_LEDGER" not in os.environ
    with pytest.raises(SystemExit) as left:
        main(["usage", *arguments])
    assert left.value.code == 2
    assert complaint in capsys.readouterr().err
