"""What a plain machine with torch and transformers has to be given."""

from __future__ import annotations

import pytest

from benchmarks.gpu import wheels


def test_what_is_carried() -> None:
    names = {line.partition("==")[0] for line in wheels.to_carry()}
    assert names >= {"msgspec", "pyzmq", "fastapi", "starlette", "uvicorn", "pydantic", "pydantic-core", "llguidance"}
    assert not names & {"torch", "triton", "transformers", "numpy", "tokenizers", "huggingface-hub", "rich", "sympy"}


def test_versions_are_those_of_this_environment() -> None:
    pins = wheels.pinned()
    carried = dict(line.split("==") for line in wheels.to_carry())
    assert carried["msgspec"] == pins["msgspec"]


def test_what_is_missing_is_named(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert wheels.main(["--missing"]) == 0
    real = wheels._version
    monkeypatch.setattr(wheels, "_version", lambda name: None if name in ("msgspec", "openai") else real(name))
    capsys.readouterr()
    assert wheels.main(["--missing"]) == 1
    named = capsys.readouterr().out.split()
    assert [line.partition("==")[0] for line in named] == ["msgspec", "openai"]


def test_a_closure_can_stop_at_packages() -> None:
    assert "markupsafe" in wheels.closure(["jinja2"])
    assert wheels.closure(["Jinja2"], stop_at=("jinja2",)) == {"jinja2"}
