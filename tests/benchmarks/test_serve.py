"""The whole program against a server whose tokens are known."""

from __future__ import annotations

import signal
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import pytest

from benchmarks import serve
from benchmarks.records import BenchmarkResult
from tests.benchmarks.fake_server import FakeServer, serving

ROOT = Path(__file__).parents[2]
PNG = b"\x89PNG\r\n\x1a\n"
SMALL = ["--input-tokens", "20", "--output-tokens", "8", "--warmup", "0", "--repeats", "1", "--num-prompts", "6"]


def measured(fake: FakeServer, folder: Path, *arguments: str) -> tuple[int, BenchmarkResult]:
    """Exit status, and what was written."""
    with serving(fake):
        status = serve.main(["--url", fake.url, "--output", str(folder), *SMALL, *arguments])
    (written,) = folder.glob("*.json")
    assert written.with_suffix(".png").read_bytes().startswith(PNG)
    return status, BenchmarkResult.load(written)


def test_every_request_is_counted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fake = FakeServer()
    status, result = measured(fake, tmp_path, "--concurrency", "3,1", "--repeats", "2", "--seed", "4")
    assert status == 0
    assert [(run.concurrency, run.repeat) for run in result.runs] == [(1, 1), (3, 1), (1, 2), (3, 2)]
    assert len({run.seed for run in result.runs}) == 4
    for run in result.runs:
        asked = [record.asked_tokens for record in run.records]
        assert [record.output_tokens for record in run.records] == asked
        assert run.metrics.output_tokens_per_s == pytest.approx(sum(asked) / run.metrics.wall_s)
        assert all(10 - 2 <= record.input_tokens <= 30 + 2 for record in run.records if record.input_tokens)
    prompts = [body["prompt"] for body in fake.streamed]
    assert len(set(prompts)) == len(prompts) == 24
    assert all(body["ignore_eos"] and body["min_tokens"] == body["max_tokens"] for body in fake.streamed)
    shown = capsys.readouterr().out
    assert "nobody" in shown
    assert "output tokens/s" in shown
    assert "seed 4" in shown
    assert (result.label, result.server["version"], result.settings["seed"]) == ("nobody", "1.2.3", 4)


def test_two_runs_ask_different_prompts(tmp_path: Path) -> None:
    fakes = [FakeServer(), FakeServer()]
    for number, fake in enumerate(fakes):
        measured(fake, tmp_path / str(number), "--concurrency", "2")
    first, second = ({body["prompt"] for body in fake.streamed} for fake in fakes)
    assert not first & second


def test_warm_up_is_not_counted(tmp_path: Path) -> None:
    fake = FakeServer()
    _, result = measured(fake, tmp_path, "--concurrency", "2", "--warmup", "3")
    assert len(fake.streamed) == 9
    assert [len(run.records) for run in result.runs] == [6]


def test_no_more_requests_at_a_time_than_asked(tmp_path: Path) -> None:
    _, result = measured(FakeServer(), tmp_path, "--concurrency", "2")
    spans = [(record.started_s, record.started_s + record.e2e_s) for record in result.runs[0].records]
    for began, _ in spans:
        assert sum(start <= began < end for start, end in spans) <= 2


def test_tokens_are_asked_for_again_where_streams_have_no_usage(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fake = FakeServer(usage="whole")
    status, result = measured(fake, tmp_path, "--concurrency", "2")
    (run,) = result.runs
    assert (status, run.tokens_from) == (0, "asked again")
    assert [record.output_tokens for record in run.records] == [record.asked_tokens for record in run.records]
    whole = {body["prompt"] for body in fake.bodies if not body.get("stream")}
    assert {body["prompt"] for body in fake.streamed} <= whole
    assert "asked again unstreamed" in capsys.readouterr().out


def test_nothing_is_guessed_where_there_is_no_usage_at_all(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _, result = measured(FakeServer(usage="never"), tmp_path, "--concurrency", "2")
    (run,) = result.runs
    assert (run.tokens_from, run.metrics.output_tokens_per_s, run.metrics.tpot_p50_s) == ("unknown", None, None)
    assert run.metrics.ttft_p50_s is not None
    assert "nothing is guessed" in capsys.readouterr().out


def test_failures_are_loud(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    trouble = {0: "error", 2: "cut", 3: "short", 4: "cut"}
    status, result = measured(FakeServer(trouble=trouble), tmp_path, "--concurrency", "1")
    assert status == 1
    metrics = result.runs[0].metrics
    assert (metrics.requests, metrics.failed, metrics.short) == (6, 3, 1)
    shown = " ".join(capsys.readouterr().out.split())
    assert "3 of 6 requests FAILED: 2 x the connection was closed before the end of the answer; 1 x error" in shown
    assert "1 answers ended before the length" in shown


@pytest.mark.parametrize(
    ("refused", "sent"),
    [
        ({"min_tokens"}, {"ignore_eos"}),
        ({"ignore_eos"}, {"min_tokens"}),
        ({"ignore_eos", "min_tokens"}, {"generation_config"}),
        ({"ignore_eos", "min_tokens", "generation_config"}, set()),
    ],
)
def test_fields_that_a_server_refuses_are_left_out(tmp_path: Path, refused: set[str], sent: set[str]) -> None:
    fake = FakeServer(refused_fields=frozenset(refused))
    status, _ = measured(fake, tmp_path, "--concurrency", "1")
    assert status == 0
    for body in fake.streamed:
        assert body.keys() & {"ignore_eos", "min_tokens", "generation_config"} == sent


def test_an_open_loop_with_goals(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    goals = ["--goal-ttft-ms", "60000", "--goal-tpot-ms", "0.000001"]
    status, result = measured(FakeServer(), tmp_path, "--request-rate", "200,inf", *goals)
    assert status == 0
    assert [(run.request_rate, run.concurrency, len(run.records)) for run in result.runs] == [(200, 6, 6), (None, 6, 6)]
    assert [run.metrics.goodput_per_s for run in result.runs] == [0, 0]
    assert result.settings["levels"] == ["200/s, c=6", "c=6"]
    shown = capsys.readouterr().out
    assert "200/s, c=6" in shown
    assert "goodput, requests/s" in shown
    assert "sent late p99" in shown


def test_an_open_loop_may_be_capped(tmp_path: Path) -> None:
    _, result = measured(FakeServer(), tmp_path, "--request-rate", "5000", "--concurrency", "1")
    (run,) = result.runs
    spans = sorted((record.started_s, record.started_s + record.e2e_s) for record in run.records)
    assert all(ended <= began for (_, ended), (began, _) in pairwise(spans))
    assert run.metrics.late_p99_s
    assert all(record.late_s <= record.started_s for record in run.records)


def test_our_own_questions(tmp_path: Path) -> None:
    fake = FakeServer()
    _, result = measured(fake, tmp_path, "--concurrency", "1", "--prompts", "questions", "--endpoint", "chat")
    assert all("\n\nThen: " in body["messages"][0]["content"] for body in fake.streamed)
    assert (result.settings["prompts"], result.settings["input_tokens"]) == ("questions", None)


def test_prompts_that_share_a_prefix(tmp_path: Path) -> None:
    fakes = [FakeServer(), FakeServer()]
    for number, fake in enumerate(fakes):
        measured(fake, tmp_path / str(number), "--concurrency", "1", "--prompts", "shared-prefix")
    beginnings = [{" ".join(body["prompt"].split()[:6]) for body in fake.streamed} for fake in fakes]
    assert [len(each) for each in beginnings] == [1, 1]
    assert beginnings[0] != beginnings[1]


def test_chat(tmp_path: Path) -> None:
    fake = FakeServer()
    measured(fake, tmp_path, "--concurrency", "1", "--endpoint", "chat")
    assert all(body["messages"][0]["role"] == "user" for body in fake.streamed)


def test_a_key_is_sent_and_not_stored(tmp_path: Path) -> None:
    measured(FakeServer(api_key="sesame"), tmp_path, "--concurrency", "1", "--api-key", "sesame")
    (written,) = tmp_path.glob("*.json")
    assert "--api-key" in written.read_text()
    assert "sesame" not in written.read_text()


@pytest.mark.parametrize(
    ("fake", "arguments", "said"),
    [
        (FakeServer(), ["--model", "other"], "HTTP 404: No such model; see --model"),
        (FakeServer(api_key="sesame"), [], "give one with --api-key"),
        (FakeServer(refused_fields=frozenset({"temperature"})), [], "HTTP 422: Unexpected fields"),
        (FakeServer(trouble={0: "status"}), ["--warmup", "1"], "A request before the first run failed: HTTP 500"),
    ],
)
def test_what_makes_measuring_useless_is_one_line(
    fake: FakeServer, arguments: list[str], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with serving(fake):
        assert serve.main(["--url", fake.url, "--output", str(tmp_path), *SMALL, *arguments]) == 1
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "url",
    ["http://127.0.0.1:1", "localhost:8080", "ftp://host", "http://", "http://x:abc", "http://a..b", "http://[x"],
)
def test_no_server_there_is_one_line(url: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert serve.main(["--url", url]) == 1
    error = capsys.readouterr().err
    assert url in error
    assert error.count("\n") == 1


@pytest.mark.parametrize(
    "arguments",
    [
        ["--concurrency", "0"],
        ["--range-ratio", "1"],
        ["--repeats", "x"],
        ["--warmup", "-1"],
        ["--conc", "1"],
        ["--request-rate", "0"],
        ["--request-rate", "nan"],
        ["--goal-ttft-ms", "0"],
        ["--prompts", "poems"],
        ["--shared-share", "1"],
    ],
)
def test_wrong_usage(arguments: list[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        serve.main(arguments)


def test_ctrl_c_shows_what_was_measured(tmp_path: Path) -> None:
    fake = FakeServer(trouble={8: "hang"})  # the third of the second run
    with serving(fake):
        command = [sys.executable, "-m", "benchmarks.serve", "--url", fake.url, "--output", str(tmp_path), *SMALL]
        command += ["--concurrency", "1,2"]
        in_the_background = ["sh", "-c", 'trap "" INT; exec "$@"', "sh"]  # where SIGINT is ignored at first
        process = subprocess.Popen(
            [*in_the_background, *command], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        try:
            assert fake.hanging.wait(60)
            process.send_signal(signal.SIGINT)
            out, error = process.communicate(timeout=60)
        finally:
            process.kill()
    assert process.returncode == 130
    assert "c=1" in out
    assert error == "interrupted\n"
    (written,) = tmp_path.glob("*.json")
    runs = BenchmarkResult.load(written).runs
    assert (runs[0].interrupted, len(runs[0].records)) == (False, 6)
    assert all(run.interrupted and len(run.records) < 6 for run in runs[1:])
