"""A real start measures once; what was asked for is never overruled; the log says what was chosen and why."""

from __future__ import annotations

import io
import itertools
import logging
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.text_engine.engine_driver import EngineDriver
from vfastml.engine.dispatch_requests import SamplingParams
from vfastml.errors import InvalidRequestError
from vfastml.text_engine import limits_report
from vfastml.text_engine.engine_config import EngineConfig
from vfastml.text_engine.engine_loader import LoadedEngine, load_engine
from vfastml.text_engine.model_runner import ModelRunner
from vfastml.text_engine.scheduler import ScheduledBatch
from vfastml.text_engine.thread_times import ThreadTimes

BOTH_SIZES = {"max_num_seqs": 4, "max_num_batched_tokens": 32}


class Starts:
    """Starts engines, and counts the steps that each start ran and the phases it reported."""

    def __init__(self, folder: Path, profiles: Path, patch: pytest.MonkeyPatch) -> None:
        self.phases: list[str] = []
        self.num_steps = 0
        self._folder, self._profiles = folder, profiles
        run = ModelRunner.run

        def counted(runner: ModelRunner, batch: ScheduledBatch) -> Any:
            self.num_steps += 1
            return run(runner, batch)

        patch.setattr(ModelRunner, "run", counted)
        self._patch = patch
        self.wait_for_cores(0.0)

    def wait_for_cores(self, share: float) -> None:
        """The share of the time that it takes, as the system is to tell it."""
        times = itertools.cycle([ThreadTimes(0, 0), ThreadTimes(1000 - int(1000 * share), int(1000 * share))])
        self._patch.setattr(ThreadTimes, "now", lambda: next(times))

    def start(self, **asked: Any) -> LoadedEngine:
        self.num_steps = 0
        self.phases = []
        # Room for 18 sequences of the length that is measured: the largest steps would only take time.
        config = EngineConfig(device="cpu", dtype="float32", decoder="hf", kv_cache_memory=1_000_000, **asked)
        return load_engine(self._folder, config, self.phases.append, profiles=self._profiles)

    @property
    def measured(self) -> bool:
        """More than the prompt and the token of warming up were run."""
        assert ("measuring steps" in self.phases) == (self.num_steps > 3)
        return self.num_steps > 3


@pytest.fixture
def starts(tiny_models: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Starts:
    return Starts(tiny_models["llama"], tmp_path / "profiles", monkeypatch)


@pytest.fixture
def told(caplog: pytest.LogCaptureFixture) -> Iterator[pytest.LogCaptureFixture]:
    with caplog.at_level(logging.INFO, "vfastml"):
        yield caplog


def reported(told: pytest.LogCaptureFixture) -> list[str]:
    """What was logged of limits."""
    return [record.message for record in told.records if record.name == limits_report.logger.name]


def test_second_start_does_not_measure_and_settles_the_same(starts: Starts) -> None:
    first = starts.start().limits
    assert starts.measured
    assert first.measured
    second = starts.start().limits
    assert not starts.measured
    assert second == first


def test_busy_machine_gets_the_fixed_sizes_and_measures_again(
    starts: Starts, told: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    starts.wait_for_cores(0.5)
    limits = starts.start().limits
    assert starts.measured
    assert (limits.max_num_seqs, limits.max_num_batched_tokens, limits.measured) == (64, 64, False)
    assert "busy: the model waited for a core for 50 % of the time" in told.text
    assert "this start does not use them, and the next one measures again" in told.text
    assert not (tmp_path / "profiles").exists()
    starts.wait_for_cores(0.1)
    assert starts.start().limits.measured
    assert starts.measured
    starts.wait_for_cores(0.5)
    assert starts.start().limits.measured
    assert not starts.measured


def test_profile_stays_when_the_machine_is_too_busy_for_another(
    starts: Starts, told: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    starts.start()
    (kept,) = (tmp_path / "profiles").iterdir()
    old = kept.read_bytes()
    starts.wait_for_cores(0.5)
    assert not starts.start(measure_limits="again").limits.measured
    assert "this start does not use them, and an earlier profile stays as it was" in told.text
    assert kept.read_bytes() == old


def test_target_is_kept_to_on_a_busy_machine_too(
    starts: Starts, told: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    starts.wait_for_cores(0.5)
    assert starts.start(target_tpot_ms=1e-3).limits.max_num_seqs == 1
    assert "this start keeps to its targets by them all the same, and the next one measures again" in told.text
    assert not (tmp_path / "profiles").exists()


def test_speeds_belong_to_the_sizes(starts: Starts) -> None:
    limits = starts.start().limits
    assert 8 <= limits.max_num_seqs <= 64
    assert limits.max_num_batched_tokens >= limits.max_num_seqs + 16
    assert limits.tpot_ms > 0
    assert limits.decode_tokens_per_s == pytest.approx(1e3 * limits.max_num_seqs / limits.tpot_ms, rel=0.01)
    assert limits.prefill_tokens_per_s > 0


def test_again_measures_and_keeps_the_new_profile(starts: Starts, tmp_path: Path) -> None:
    starts.start()
    (kept,) = (tmp_path / "profiles").iterdir()
    old = kept.read_bytes()
    starts.start(measure_limits="again")
    assert starts.measured
    assert kept.read_bytes() != old
    starts.start()
    assert not starts.measured


def test_never_takes_the_fixed_sizes(starts: Starts, told: pytest.LogCaptureFixture) -> None:
    limits = starts.start(measure_limits="never").limits
    assert not starts.measured
    assert (limits.max_num_seqs, limits.max_num_batched_tokens) == (64, 64)
    assert (limits.measured, limits.tpot_ms, limits.decode_tokens_per_s, limits.prefill_tokens_per_s) == (
        False,
        0,
        0,
        0,
    )
    assert "no measured steps were used" in told.text


def test_with_both_sizes_given_there_is_nothing_to_measure(starts: Starts, told: pytest.LogCaptureFixture) -> None:
    limits = starts.start(**BOTH_SIZES, target_tpot_ms=1.0).limits
    assert not starts.measured
    assert (limits.max_num_seqs, limits.max_num_batched_tokens, limits.measured) == (4, 32, False)
    assert "--target-tpot-ms changes nothing" in told.text
    assert starts.start(**BOTH_SIZES, measure_limits="again").limits.max_num_seqs == 4
    assert starts.measured


def test_given_size_is_kept_and_the_other_measured(starts: Starts) -> None:
    assert starts.start(max_num_seqs=3).limits.max_num_seqs == 3
    assert starts.measured
    limits = starts.start(max_num_seqs=100).limits
    assert limits.max_num_seqs == 100
    assert limits.max_num_batched_tokens >= 116
    assert starts.start(max_num_batched_tokens=24).limits.max_num_batched_tokens == 24
    assert starts.measured


def test_targets_choose_from_the_same_profile(starts: Starts, told: pytest.LogCaptureFixture) -> None:
    starts.start()
    limits = starts.start(target_tpot_ms=1e-3, target_ttft_ms=1e-3).limits
    assert not starts.measured
    assert limits.max_num_seqs == 1
    warnings = [record.message for record in told.records if record.levelno == logging.WARNING]
    assert [message.split()[0] for message in warnings] == ["--target-tpot-ms", "--target-ttft-ms"]
    assert all("is not met: a step with" in message for message in warnings)


def test_log_says_what_was_chosen_and_why(starts: Starts, told: pytest.LogCaptureFixture) -> None:
    limits = starts.start().limits
    assert [line.partition(":")[0] for line in reported(told)] == [
        "decode at 128 tokens of context, ms a step by sequences",
        "prefill, ms a step by tokens",
        "KV cache",
        f"max_num_seqs {limits.max_num_seqs}",
        f"max_num_batched_tokens {limits.max_num_batched_tokens}",
    ]
    told.clear()
    starts.start()
    lines = reported(told)
    assert "measured at an earlier start" in lines[0]
    assert len(lines) == 4


def test_table_is_for_a_terminal(
    starts: Starts, told: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    terminal = io.StringIO()
    monkeypatch.setattr(terminal, "isatty", lambda: True)
    monkeypatch.setattr(sys, "stderr", terminal)
    starts.start()
    assert "Measured steps" in terminal.getvalue()
    for words in ("1 sequences", "16 prompt tokens", "max_num_seqs", "max_num_batched_tokens", "KV cache: 1 MiB"):
        assert words in terminal.getvalue()
    assert "ms a step by" not in told.text
    terminal.truncate(0)
    starts.start()
    assert "Measured steps" not in terminal.getvalue()


def test_engine_answers_as_one_that_was_not_measured(tiny_models: dict[str, Path], starts: Starts) -> None:
    def answer(driver: EngineDriver) -> list[int]:
        request = driver.add([5, 6, 7] * 20, SamplingParams(temperature=0.0, max_tokens=20, ignore_eos=True))
        driver.run()
        return driver.tokens(request)

    plain = EngineDriver.load(tiny_models["llama"], dtype="float32", decoder="hf")
    assert answer(EngineDriver(starts.start())) == answer(plain)


@pytest.mark.parametrize(
    ("asked", "flag"),
    [
        ({"measure_limits": "sometimes"}, "--measure-limits 'sometimes' is not known: use auto, never, again"),
        ({"target_tpot_ms": 0.0}, "--target-tpot-ms must be more than 0"),
        ({"target_ttft_ms": -1.0}, "--target-ttft-ms must be more than 0"),
        ({"target_ttft_ms": float("inf")}, "--target-ttft-ms must be more than 0"),
        ({"target_tpot_ms": 5.0, "measure_limits": "never"}, "--target-tpot-ms needs measured steps"),
    ],
)
def test_settings_that_cannot_work(starts: Starts, asked: dict[str, Any], flag: str) -> None:
    with pytest.raises(InvalidRequestError, match=flag):
        starts.start(**asked)
