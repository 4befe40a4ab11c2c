"""The whole program, with fake servers in the places of real ones."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from benchmarks import compare, lineup
from benchmarks.entrants import StartedServer
from benchmarks.errors import BenchmarkError
from benchmarks.records import BenchmarkResult
from tests.benchmarks.fake_program import fake_peer
from tests.benchmarks.fake_server import FakeServer, serving

ROOT = Path(__file__).parents[2]
SMALL = ["--input-tokens", "20", "--output-tokens", "8", "--warmup", "1", "--num-prompts", "3", "--concurrency", "1,2"]


class Place:
    """Where one comparison runs."""

    def __init__(self, folder: Path, model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.journal = folder / "journal"
        self.journal.touch()
        self.output = folder / "results"
        self.model = model
        self._monkeypatch = monkeypatch
        monkeypatch.setattr(tempfile, "tempdir", str(folder))  # the logs of the servers
        monkeypatch.setenv("TMPDIR", str(folder))
        self.own()

    def own(self, behaviour: str = "well") -> None:
        self._monkeypatch.setattr(lineup, "OWN", fake_peer("vfastml", self.journal, behaviour))

    def peers(self, **behaviours: str) -> None:
        for name, behaviour in behaviours.items():
            self._monkeypatch.setitem(lineup.PEERS, name, fake_peer(name, self.journal, behaviour))

    def compare(self, peers: str, *arguments: str) -> int:
        where = ["--model-uri", str(self.model), "--output", str(self.output), "--peers", peers]
        return compare.main([*where, *SMALL, *arguments])

    def results(self) -> dict[str, BenchmarkResult]:
        found = [BenchmarkResult.load(path) for path in self.output.glob("*.json")]
        return {result.label: result for result in found}

    def events(self) -> list[str]:
        return [line.rpartition(" ")[0] for line in self.journal.read_text().splitlines()]

    def pids(self) -> list[int]:
        return [int(line.rpartition(" ")[2]) for line in self.journal.read_text().splitlines()]


@pytest.fixture
def place(tmp_path: Path, tiny_models: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> Place:
    return Place(tmp_path, tiny_models["llama"], monkeypatch)


def test_servers_take_turns_and_only_one_runs(place: Place, capsys: pytest.CaptureFixture[str]) -> None:
    place.peers(vllm="well", tgi="missing")
    with serving(FakeServer()) as running:
        arguments = ["--variant", "quick=--speed 9", "--peer", f"remote={running.url}", "--repeats", "2"]
        assert place.compare("vllm,tgi", *arguments, "--seed", "5") == 0
    one_turn = [
        *("start vfastml", "end vfastml"),
        *("start vfastml --speed 9", "end vfastml"),
        *("start vllm", "end vllm"),
    ]
    # the second repeat begins with the second of them
    assert place.events() == one_turn + one_turn[2:] + one_turn[:2]
    results = place.results()
    assert results.keys() == {"vfastml", "quick", "vllm", "remote"}
    for result in results.values():
        assert [(run.repeat, run.concurrency) for run in result.runs] == [(1, 1), (1, 2), (2, 1), (2, 2)]
        assert [run.metrics.requests for run in result.runs] == [3] * 4
        assert result.settings["seed"] == 5
    assert (results["quick"].server["variant_of"], results["quick"].server["flags"]) == ("vfastml", "--speed 9")
    assert "flags" not in results["vfastml"].server
    shown = capsys.readouterr().out
    assert "without tgi: it is not there; install it" in shown
    assert "repeat 2 of 2, remote" in shown
    assert "quick: started with --speed 9" in shown
    (table,) = place.output.glob("compare-*.md")
    assert "| first / best other |" in table.read_text()


def test_every_server_gets_the_same_prompts_and_each_repeat_new_ones(place: Place) -> None:
    place.peers(vllm="well")
    assert place.compare("vllm", "--repeats", "2") == 0
    own, peer = (
        [[record.asked_tokens for record in run.records] for run in place.results()[label].runs]
        for label in ("vfastml", "vllm")
    )
    assert [sorted(run) for run in own] == [sorted(run) for run in peer]
    assert len({run.seed for run in place.results()["vllm"].runs}) == 4


def test_what_is_written(place: Place, capsys: pytest.CaptureFixture[str]) -> None:
    place.peers(vllm="well")
    assert place.compare("vllm", "--repeats", "1") == 0
    (table,) = place.output.glob("compare-*.md")
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in table.read_text().splitlines() if "|" in line]
    assert rows[0] == ["", "vfastml", "vllm"]
    titles = [row[0] for row in rows]
    assert {"c=1  output tokens/s", "c=2  TTFT p50, ms", "c=2  failed", "start to ready, s"} <= {*titles}
    memory = next(row for row in rows if row[0] == "resident memory, MB")
    assert all(float(cell) > 5 for cell in memory[1:])
    assert next(row for row in rows if row[0] == "c=1  output tokens/s")[2].endswith("x")
    assert next(place.output.glob("compare-*.png")).read_bytes().startswith(b"\x89PNG")


def test_no_record_says_where_things_lie_on_this_machine(place: Place, tmp_path: Path) -> None:
    place.peers(vllm="well")
    flags = ["--variant", f"vfastml=--folder {tmp_path}/cache --api-key secret", f"--gguf={tmp_path / 'model.gguf'}"]
    assert place.compare("vllm", "--repeats", "1", *flags) == 0
    assert place.results()["vfastml"].server["flags"] == "--folder cache --api-key ..."
    for path in place.output.glob("*.json"):
        assert str(tmp_path) not in path.read_text()
        assert "--gguf=model.gguf" in json.loads(path.read_text())["command"]


def test_servers_may_keep_running(place: Place) -> None:
    place.peers(vllm="well")
    assert place.compare("vllm", "--repeats", "2", "--keep-running") == 0
    assert place.events()[:2] == ["start vfastml", "start vllm"]
    assert sorted(place.events()[2:]) == ["end vfastml", "end vllm"]
    assert [len(result.runs) for result in place.results().values()] == [4, 4]


def test_a_peer_that_does_not_start_is_out_and_the_others_go_on(
    place: Place, capsys: pytest.CaptureFixture[str]
) -> None:
    place.peers(vllm="broken", sglang="well")
    assert place.compare("vllm,sglang", "--repeats", "2") == 1
    shown = capsys.readouterr().out
    assert shown.count("vllm is out: vllm ended before it was ready, with status 1: the model is not to my taste") == 1
    assert place.results().keys() == {"vfastml", "sglang"}
    assert len(place.results()["sglang"].runs) == 4


def test_without_this_server_there_is_no_comparison(place: Place, capsys: pytest.CaptureFixture[str]) -> None:
    place.own("broken")
    place.peers(vllm="well")
    assert place.compare("vllm") == 1
    error = capsys.readouterr().err
    assert "vfastml ended before it was ready" in error
    assert error.count("\n") == 1
    assert place.events() == []


def test_if_this_server_breaks_later_what_was_measured_is_shown(
    place: Place, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    turn = StartedServer.turn

    def breaks(self: StartedServer, repeat: int) -> None:
        if (self.label, repeat) == ("vfastml", 2):
            raise BenchmarkError("vfastml ended early.")
        turn(self, repeat)

    monkeypatch.setattr(StartedServer, "turn", breaks)
    place.peers(vllm="well")
    assert place.compare("vllm", "--repeats", "2") == 1
    shown = capsys.readouterr()
    assert shown.err.strip() == "vfastml ended early."
    assert "written:" in shown.out
    assert {label: len(result.runs) for label, result in place.results().items()} == {"vfastml": 2, "vllm": 4}


def test_a_server_is_warmed_up_for_the_highest_concurrency(place: Place) -> None:
    given = SMALL.copy()
    del given[given.index("--warmup") : given.index("--warmup") + 2]
    where = ["--model-uri", str(place.model), "--output", str(place.output), "--peers", "", "--repeats", "1"]
    assert compare.main([*where, *given]) == 0
    assert place.results()["vfastml"].settings["warmup"] == 2


def test_a_server_that_is_never_ready_is_stopped(place: Place, capsys: pytest.CaptureFixture[str]) -> None:
    with serving(FakeServer()) as other:
        assert place.compare("", "--peer", f"other={other.url}", "--start-timeout", "0") == 1
    assert "vfastml was not ready within 0 s" in capsys.readouterr().err
    assert not any(map(psutil.pid_exists, place.pids()))


def test_transformers_offline(place: Place, capsys: pytest.CaptureFixture[str]) -> None:
    assert place.compare("hf-generate", "--repeats", "1", "--dtype", "float32") == 0
    result = place.results()["hf-generate"]
    assert [run.concurrency for run in result.runs] == [1, 2]
    assert (result.settings["endpoint"], result.settings["range_ratio"]) == ("offline", 0.0)
    assert "only tokens/s compared: hf-generate" in " ".join(capsys.readouterr().out.split())


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--variant", "a=", "--peer", "a=http://127.0.0.1:1"], "Two of the servers are called a"),
        (["--variant", "a/b="], "a/b cannot be the name of a server"),
    ],
)
def test_names_that_cannot_be(
    place: Place, arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert place.compare("", *arguments) == 1
    assert said in capsys.readouterr().err
    assert place.events() == []


@pytest.mark.parametrize("arguments", [["--peers", "nobody"], ["--peer", "x"], ["--variant", "=x"]])
def test_wrong_usage(arguments: list[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        compare.main(arguments)


@contextmanager
def running_comparison(place: Place, behaviour: str) -> Iterator[subprocess.Popen[str]]:
    """In a process of its own, with one fake peer after this server."""
    code = (
        "import sys; from pathlib import Path; from benchmarks import compare, lineup, child_process;"
        "from tests.benchmarks.fake_program import fake_peer; journal = Path(sys.argv[1]);"
        "child_process._PATIENCE_S = 0.5; lineup.OWN = fake_peer('vfastml', journal);"
        "lineup.PEERS['vllm'] = fake_peer('vllm', journal, sys.argv[2]); sys.exit(compare.main(sys.argv[3:]))"
    )
    where = ["--model-uri", str(place.model), "--output", str(place.output), "--peers", "vllm"]
    command = [sys.executable, "-c", code, str(place.journal), behaviour, *where, *SMALL]
    process = subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def wait_for(place: Place, event: str) -> None:
    deadline = time.monotonic() + 60
    while event not in place.events():
        assert time.monotonic() < deadline, place.journal.read_text()
        time.sleep(0.02)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("behaviour", ["hang", "stubborn"])
def test_a_stop_leaves_no_process_behind_and_shows_what_was_measured(
    place: Place, number: signal.Signals, behaviour: str
) -> None:
    with running_comparison(place, behaviour) as process:
        wait_for(place, "start vllm")
        process.send_signal(number)
        out, error = process.communicate(timeout=60)
    assert process.returncode == 130, error
    assert "interrupted" in error
    assert "Traceback" not in error
    assert "written:" in out
    assert "vfastml" in place.results()
    assert not any(_lives(pid) for pid in place.pids())


def _lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except (ProcessLookupError, psutil.NoSuchProcess):
        return False
