"""The flags that bound what waits and what is open."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from prebuilt_apps.openai import api_server, model_server
from vfastml.entrypoints.gateway_config import GatewayConfig
from vfastml.models_servers import model_server_text_hf
from vfastml.models_servers.admission import MAX_WAITING, MAX_WAITING_TOKENS


def test_bounds_of_a_gateway_reach_its_configuration() -> None:
    options = api_server.build_parser().parse(["--max-open", "7", "--max-open-per-key", "2"])
    config = GatewayConfig(**api_server.settings_of(options))
    assert (config.max_open, config.max_open_per_key) == (7, 2)


def test_help_tells_the_defaults() -> None:
    text, defaults = " ".join(api_server.build_parser().format_help().split()), GatewayConfig()
    assert f"refused with 429 (default: {defaults.max_open})" in text
    assert f"0 is no bound (default: {defaults.max_open_per_key})" in text
    text = " ".join(model_server.build_parser().format_help().split())
    assert f"(default: {MAX_WAITING})" in text
    assert f"(default: {MAX_WAITING_TOKENS})" in text


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--max-waiting", "-1"], "at least 0"),
        (["--max-waiting-tokens", "many"], "at least 0"),
    ],
)
def test_bad_bounds_of_a_model_server(capsys: pytest.CaptureFixture[str], arguments: list[str], expected: str) -> None:
    with pytest.raises(SystemExit, match="2"):
        model_server.build_parser().parse(arguments)
    assert expected in capsys.readouterr().err


def test_bounds_of_a_model_server_reach_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    given: dict[str, object] = {}

    class Server:
        def __init__(self, **options: object) -> None:
            given.update(options)

        def run_forever(self) -> None:
            pass

    monkeypatch.setattr(signal, "signal", lambda *_: None)
    monkeypatch.setattr(model_server, "configure_logging", lambda *_: None)
    monkeypatch.setattr(model_server_text_hf, "TextGenerationModelServerHF", Server)
    model_server.main(["--max-waiting", "0", "--max-waiting-tokens", "100", "--model-uri", str(tmp_path)])
    assert (given["max_waiting"], given["max_waiting_tokens"]) == (0, 100)
