from __future__ import annotations

import signal
from pathlib import Path

import msgspec
import pytest

from benchmarks import engine, memory_bandwidth
from benchmarks.engine_records import EngineResult, median
from benchmarks.memory_bandwidth import MemoryReader, WeightReading, weight_bytes
from vfastml.errors import VFastMLError
from vfastml.text_engine import cpu_kernels
from vfastml.text_engine.cpu_kernels import NoKernels
from vfastml.text_engine.engine_config import EngineConfig

LENGTHS = ["--input-tokens", "40", "--output-tokens", "4", "--repeats", "2", "--device", "cpu", "--decoder", "hf"]


def run(arguments: list[str], model: Path, output: Path) -> EngineResult:
    given = [*arguments, "--model-uri", str(model), "--output", str(output)]
    assert engine.main(given) == 0
    (written,) = output.glob("engine-*.json")
    assert str(model.parent) not in written.read_text()
    assert str(output) not in written.read_text()
    assert written.with_suffix(".png").stat().st_size > 0
    return msgspec.json.decode(written.read_bytes(), type=EngineResult)


@pytest.fixture
def small_buffer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory_bandwidth, "_BUFFER_BYTES", 1 << 20)


def test_overhead_has_every_part(
    tiny_models: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["overhead", "--batch", "1,5", "--steps", "4", "--repeats", "2"]
    runs = run(arguments, tiny_models["llama"], tmp_path).runs
    assert [(each.sequences, each.repeat) for each in runs] == [(1, 1), (5, 1), (1, 2), (5, 2)]
    for each in runs:
        *parts, step, steps_per_s = each.figures.values()
        assert sum(parts) == pytest.approx(step)
        assert steps_per_s == pytest.approx(1e3 / step)
        assert all(part > 0 for part in parts)
    assert "update, ms" in capsys.readouterr().out


@pytest.mark.usefixtures("small_buffer")
def test_throughput_of_a_tiny_model(tiny_models: dict[str, Path], tmp_path: Path) -> None:
    arguments = ["throughput", *LENGTHS, "--batch", "1,3", "--dtype", "float32"]
    runs = run(arguments, tiny_models["llama"], tmp_path).runs
    assert [(each.case, each.sequences) for each in runs] == [("hf", 1), ("hf", 3)] * 2
    for each in runs:
        assert each.figures["output tokens/s"] > 0
        assert each.figures["prefill tokens/s"] > each.figures["output tokens/s"]
        assert each.figures["decode step, ms"] > 0
        assert ("of bandwidth, %" in each.figures) == (each.sequences == 1)


def test_prefix_is_found_by_the_share_that_has_it(
    tiny_models: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["prefix", *LENGTHS, "--batch", "2,4", "--shares", "50,100", "--dtype", "float32"]
    arguments += ["--kv-cache-memory", "1MB"]
    runs = run(arguments, tiny_models["llama"], tmp_path).runs
    cases = ("0 % share, no cache", "0 % share", "50 % share", "100 % share")
    # 36 of 40 tokens are alike, two whole blocks of 16
    assert [median(runs, case, "cached, %") for case in cases] == [0, 0, 40, 80]
    assert {run.case for run in runs if "cache's own work, %" in run.figures} == {"0 % share"}
    shown = capsys.readouterr().out
    assert all(f"n={size}: the cache costs" in shown for size in (2, 4))


def test_as_many_sequences_run_as_the_record_says(
    tiny_models: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[EngineConfig] = []

    def load(folder: Path, config: EngineConfig, report: object) -> None:
        asked.append(config)
        raise VFastMLError("enough")

    monkeypatch.setattr(engine, "load_engine", load)
    where = ["--model-uri", str(tiny_models["llama"]), "--output", str(tmp_path), "--device", "cpu"]
    for sizes in (["--batch", "1,8"], ["--batch", "1,256"], ["--batch", "256", "--max-num-batched-tokens", "64"]):
        assert engine.main(["throughput", *where, *sizes]) == 1
    assert [each.max_num_batched_tokens for each in asked] == [128, 256, 256]


def test_ctrl_c_is_no_traceback(
    tiny_models: dict[str, Path], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(engine, "measure_overhead", lambda *_: signal.raise_signal(signal.SIGTERM))
    before = signal.getsignal(signal.SIGTERM)
    assert engine.main(["overhead", "--model-uri", str(tiny_models["llama"])]) == 130
    assert capsys.readouterr().err == "interrupted\n"
    assert signal.getsignal(signal.SIGTERM) is before


def test_weights_that_a_step_reads(tiny_models: dict[str, Path]) -> None:
    vocab_size, hidden, inner, layers, kv_share = 259, 48, 96, 3, 2 / 6
    attention = hidden * hidden * (2 + 2 * kv_share)
    matrices = layers * (attention + 3 * hidden * inner) + vocab_size * hidden
    norms = (2 * layers + 1) * hidden
    assert weight_bytes(tiny_models["llama"], "float32") == 4 * (matrices + norms)
    assert weight_bytes(tiny_models["llama"], "int8") == matrices + norms


def test_reading_without_kernels(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(level: str) -> None:
        raise NoKernels("this processor has no AVX2")

    monkeypatch.setattr(cpu_kernels, "load", refuse)
    clock = iter(range(1000))
    monkeypatch.setattr(memory_bandwidth.time, "perf_counter", lambda: next(clock))
    assert MemoryReader(3, 1 << 20).bytes_per_s() == 1 << 20


@pytest.mark.usefixtures("small_buffer")
def test_a_step_is_compared_with_the_memory_of_its_moment(monkeypatch: pytest.MonkeyPatch) -> None:
    # halfway through, cores move to where memory is reached twice as fast
    moments = iter([20e9] * 4 + [40e9] * 5)
    monkeypatch.setattr(MemoryReader, "bytes_per_s", lambda _: next(moments))
    steps = iter([0.01] * 4 + [0.005] * 4)
    figures = WeightReading(10**8, 2).figures(lambda: next(steps))
    assert figures["of bandwidth, %"] == pytest.approx(50)
    assert figures["memory, GB/s (2 threads)"] == 40


def test_a_model_that_is_not_there_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert engine.main(["overhead", "--model-uri", str(tmp_path / "none"), "--output", str(tmp_path)]) == 1
    assert capsys.readouterr().err.count("\n") == 1
