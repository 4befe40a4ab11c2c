"""`--profile`, from the flag to the file."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Any

import pytest

from prebuilt_apps.openai import model_server
from vfastml.engine.dispatch_requests import SamplingParams, TextGenerationReq
from vfastml.errors import InvalidRequestError
from vfastml.models_servers import model_server_text_hf
from vfastml.models_servers.model_server_text_hf import TextGenerationModelServerHF
from vfastml.text_engine.engine_config import EngineConfig
from vfastml.text_engine.step_trace import TRACED_STEPS, WARM_STEPS


def make_server(folder: Path, trace_folder: Path | None) -> TextGenerationModelServerHF:
    config = EngineConfig(kv_cache_memory=2_000_000, measure_limits="never")
    return TextGenerationModelServerHF(
        model_uri=str(folder), model_device="cpu", engine_config=config, trace_folder=trace_folder
    )


@pytest.mark.parametrize("asked", [True, False])
def test_a_trace_is_written_where_one_was_asked_for(asked: bool, tiny_models: dict[str, Path], tmp_path: Path) -> None:
    traces = tmp_path / "traces"
    server = make_server(tiny_models["llama"], traces if asked else None)
    sampling = SamplingParams(max_tokens=WARM_STEPS + TRACED_STEPS, ignore_eos=True)
    server.submit(TextGenerationReq(request_id="a", prompt="ab", sampling=sampling))
    [result] = server.run_until_idle()
    assert result.error is None
    server.close()
    assert len(list(traces.glob("steps-*.json"))) == asked


def test_a_folder_that_cannot_be_written_is_refused_before_the_model_is_loaded(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    server = make_server(tmp_path / "no-model", tmp_path / "file")
    with pytest.raises(InvalidRequestError, match="--profile cannot write into"):
        server.load()


def test_the_flag(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[dict[str, Any]] = []

    class Server:
        def __init__(self, **options: Any) -> None:
            made.append(options)

        def run_forever(self) -> None:
            """Nothing: the arguments are what matters."""

    monkeypatch.setattr(model_server_text_hf, "TextGenerationModelServerHF", Server)
    monkeypatch.setattr(signal, "signal", lambda *_: None)  # what it does to Ctrl-C would outlive this test
    for arguments in ([], ["--profile", "traces"]):
        model_server.main(arguments)
    assert [options["trace_folder"] for options in made] == [None, "traces"]
