"""`python -m tests.fuzz`: a short run of it, and that it would not keep quiet."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.fuzz.__main__ import main
from tests.fuzz.campaign import Campaign
from tests.fuzz.findings import Findings
from tests.fuzz.http_reply import HttpReplies, HttpReply
from tests.fuzz.watched_process import MOST_GROWTH_BYTES, WatchedProcess

REPOSITORY = Path(__file__).parents[2]
ENVELOPE = b'{"error":{"message":"No.","type":"server_error","param":null,"code":null}}'


@pytest.mark.rule("S12")
def test_a_short_run_finds_nothing() -> None:
    command = [sys.executable, "-m", "tests.fuzz", "--count", "600", "--seed", "1"]
    run = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, timeout=240)
    assert run.returncode == 0, run.stdout + run.stderr
    assert "Nothing is wrong." in run.stdout
    for kind in ("HTTP", "request frame", "reply frame"):
        assert kind in run.stdout


def test_what_is_wrong_is_shown_and_is_the_exit_status(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("tests.fuzz.__main__._tiny_model", lambda folder: folder)
    monkeypatch.setattr(Campaign, "run", lambda self, seed, numbers: self.findings.add("status 500", 17, b"GET /"))
    assert main(["--count", "1"]) == 1
    assert "WRONG: status 500 [case 17: b'GET /']" in capsys.readouterr().out


def test_findings_are_counted_and_the_first_ones_kept() -> None:
    findings = Findings()
    for number in range(1000):
        findings.add("wrong", number)
    assert findings.num_wrong == 1000
    assert 0 < len(findings.wrong) < 100


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (500, ENVELOPE),
        (504, ENVELOPE),
        (200, b'data: {"error":{"code":"internal_error"}}\n\n'),
        (400, b"plain words"),
        (404, b'{"detail":"Not Found"}'),
        (400, ENVELOPE.replace(b"No.", b"<object at 0x7f3a2b1c>")),
    ],
)
def test_wrong_answers(status: int, body: bytes) -> None:
    assert HttpReply(status, bytearray(body), is_whole=True).problem()


@pytest.mark.parametrize("status", [400, 429, 503])
def test_right_answers(status: int) -> None:
    assert HttpReply(status, bytearray(ENVELOPE), is_whole=True).problem() is None


def test_several_answers_on_one_connection() -> None:
    answer = HttpReplies()
    answer.feed(b"HTTP/1.1 100 Continue\r\n\r\n")
    assert not answer.is_whole
    answer.feed(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nokHTTP/1.1 404 No\r\ncontent-length: 1\r\n\r\n")
    assert [reply.status for reply in answer.replies] == [100, 200, 404]
    assert not answer.is_whole


def test_a_process_that_ends_or_grows_is_noticed() -> None:
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    watched = WatchedProcess("sleeper", process)
    assert watched.problems() == []
    watched.rss_before -= MOST_GROWTH_BYTES + (32 << 20)
    watched.look()
    assert "has grown" in watched.problems()[0]
    process.communicate(b"\n", timeout=30)
    assert watched.problems() == ["the sleeper has ended with status 0"]
