from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import pytest
from torch.profiler import profile

from tests.text_engine.engine_driver import EngineDriver
from vfastml.engine.dispatch_requests import SamplingParams
from vfastml.errors import InvalidRequestError
from vfastml.text_engine.step_trace import TRACED_STEPS, WARM_STEPS, StepTrace, writable_folder

PARTS = ("schedule", "forward", "sample", "update")


@pytest.fixture
def driver(tiny_models: dict[str, Path]) -> EngineDriver:
    return EngineDriver.load(tiny_models["llama"], dtype="float32", kv_cache_memory=1_000_000)


def spans(folder: Path) -> dict[str, list[dict[str, Any]]]:
    """Of the only trace, by name."""
    (path,) = folder.iterdir()
    events = json.loads(path.read_text())["traceEvents"]
    named = [event for event in events if event.get("cat") == "user_annotation"]
    return {name: [event for event in named if event["name"] == name] for name in (*PARTS, "step")}


def run_steps(trace: StepTrace, driver: EngineDriver, count: int) -> None:
    for _ in range(count):
        assert driver.engine.has_work
        trace.step()


def test_each_traced_step_has_its_parts_in_order(
    driver: EngineDriver, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    driver.add([1, 2, 3], SamplingParams(temperature=0.0, max_tokens=WARM_STEPS + TRACED_STEPS + 5, ignore_eos=True))
    trace = StepTrace(driver.engine, tmp_path)
    run_steps(trace, driver, WARM_STEPS + TRACED_STEPS - 1)
    assert not list(tmp_path.iterdir())
    run_steps(trace, driver, 1)
    found = spans(tmp_path)
    assert {name: len(events) for name, events in found.items()} == dict.fromkeys(found, TRACED_STEPS)
    for number, step in enumerate(found["step"]):
        parts = [found[name][number] for name in PARTS]
        assert [part["ts"] for part in parts] == sorted(part["ts"] for part in parts)
        assert step["ts"] <= parts[0]["ts"]
        assert parts[-1]["ts"] + parts[-1]["dur"] <= step["ts"] + step["dur"]
    (path,) = tmp_path.iterdir()
    assert f"traced {TRACED_STEPS} steps: open {path} at ui.perfetto.dev or in chrome://tracing" in caplog.text


def test_it_is_done_once_and_the_engine_is_as_before(driver: EngineDriver, tmp_path: Path) -> None:
    prompt, sampling = [5, 6, 7], SamplingParams(temperature=0.0, max_tokens=2 * WARM_STEPS, ignore_eos=True)
    driver.add(prompt, sampling)
    driver.run()
    traced = driver.add(prompt, sampling)
    trace = StepTrace(driver.engine, tmp_path)
    tokens: list[int] = []
    while driver.engine.has_work:
        tokens += [token for reply in trace.step() for token in getattr(reply, "token_ids", None) or []]
    trace.close()
    assert tokens == driver.tokens("r0")
    assert len(list(tmp_path.iterdir())) == 1
    (written,) = tmp_path.iterdir()
    written.unlink()
    driver.answers.pop(traced)
    driver.add(prompt, sampling)
    run_steps(trace, driver, WARM_STEPS)
    trace.close()
    assert not list(tmp_path.iterdir())


class NamedArguments:
    """An engine whose part is called as the runner of a GPU calls its sampler."""

    def parts(self) -> dict[str, tuple[object, str]]:
        return {"sample": (self, "sample")}

    def step(self) -> list[Any]:
        return [self.sample(1, out=2)]

    def sample(self, first: int, *, out: int) -> int:
        return first + out


def test_a_part_may_have_named_arguments(tmp_path: Path) -> None:
    engine = NamedArguments()
    trace = StepTrace(engine, tmp_path)  # type: ignore[arg-type]
    for _ in range(WARM_STEPS + TRACED_STEPS):
        assert trace.step() == [3]  # type: ignore[comparison-overlap]
    assert len(spans(tmp_path)["sample"]) == TRACED_STEPS


def test_what_was_traced_before_the_end_is_written(driver: EngineDriver, tmp_path: Path) -> None:
    driver.add([1, 2, 3], SamplingParams(temperature=0.0, max_tokens=WARM_STEPS + TRACED_STEPS, ignore_eos=True))
    trace = StepTrace(driver.engine, tmp_path)
    run_steps(trace, driver, WARM_STEPS + 2)
    trace.close()
    assert len(spans(tmp_path)["forward"]) == 2


@pytest.mark.parametrize("error", [OSError("No space left"), RuntimeError("Cannot save")])
def test_a_trace_that_cannot_be_written_costs_no_reply(
    driver: EngineDriver,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    error: Exception,
) -> None:
    def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr(profile, "export_chrome_trace", fail)
    driver.add([1, 2, 3], SamplingParams(temperature=0.0, max_tokens=WARM_STEPS + TRACED_STEPS + 1, ignore_eos=True))
    trace = StepTrace(driver.engine, tmp_path)
    run_steps(trace, driver, WARM_STEPS + TRACED_STEPS - 1)
    assert trace.step()
    assert [record.getMessage().partition("steps-")[0] for record in caplog.records] == [f"no trace: {tmp_path}/"]
    assert str(error) in caplog.text
    assert trace.step()
    trace.close()


def test_the_parts_are_left_as_they_were(driver: EngineDriver, tmp_path: Path) -> None:
    before = [dict(vars(owner)) for owner, _ in driver.engine.parts().values()]
    driver.add([1, 2, 3], SamplingParams(temperature=0.0, max_tokens=WARM_STEPS + TRACED_STEPS, ignore_eos=True))
    trace = StepTrace(driver.engine, tmp_path)
    run_steps(trace, driver, WARM_STEPS + 1)
    for owner, method in driver.engine.parts().values():
        assert getattr(owner, method).__name__ == "spanned"
    trace.close()
    for (owner, method), attributes in zip(driver.engine.parts().values(), before, strict=True):
        assert vars(owner).keys() == attributes.keys()
        assert vars(owner).get(method) is attributes.get(method)


def test_too_few_steps_are_said(driver: EngineDriver, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    driver.add([1, 2, 3], SamplingParams(temperature=0.0, max_tokens=WARM_STEPS, ignore_eos=True))
    trace = StepTrace(driver.engine, tmp_path)
    run_steps(trace, driver, 3)
    trace.close()
    assert "no trace: 3 steps were made" in caplog.text
    assert not list(tmp_path.iterdir())


def test_the_folder_is_made(tmp_path: Path) -> None:
    assert writable_folder(str(tmp_path / "new" / "er")).is_dir()


def test_a_folder_that_cannot_be_written_is_refused_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(InvalidRequestError, match=r"--profile cannot write into .*: name another folder\.$"):
        writable_folder(tmp_path / "file" / "folder")
