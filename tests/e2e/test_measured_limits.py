"""What a model server has measured is told by the gateway."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.e2e.service import Service, running


def test_models_tell_what_was_measured(
    tiny_models: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VFASTML_CACHE", str(tmp_path))  # no profile of an earlier run
    arguments = ["--model-uri", str(tiny_models["llama"]), "--dtype", "float32", "--kv-cache-memory", "1MB"]
    arguments += ["--measure-limits", "auto", "--max-num-seqs", "5", "--target-tpot-ms", "0.001"]
    with running(Service(tmp_path, arguments)) as service:
        (model,) = service.http.get("/v1/models").json()["data"]
        about = model["vfastml"]
        limits = service.load()["servers"][0]["limits"]
        log = service.log("model_server")
    assert (about["measured"], about["max_num_seqs"]) == (True, 5)
    assert (about["device"].split(":")[0], about["dtype"]) in [("cpu", "float32"), ("cuda", "float32")]
    assert about["decoder"]
    assert all(about[name] > 0 for name in ("tpot_ms", "decode_tokens_per_s", "prefill_tokens_per_s"))
    assert {name: value for name, value in about.items() if name in limits}.items() <= limits.items()
    assert "max_num_seqs 5: as asked for" in log
    assert "--target-tpot-ms 0.001 is not met: a step with 5 sequences takes" in log
