"""The flags of the admin listener."""

from __future__ import annotations

import pytest

from prebuilt_apps.openai import __main__ as serve
from prebuilt_apps.openai import api_server
from vfastml.entrypoints.gateway_config import GatewayConfig


def config_of(*arguments: str) -> GatewayConfig:
    return GatewayConfig(**api_server.settings_of(api_server.build_parser().parse(arguments)))


def test_they_reach_the_configuration() -> None:
    config = config_of("--admin-host", "::1", "--admin-port", "9000")
    assert (config.admin, config.admin_host, config.admin_port) == (True, "::1", 9000)
    assert not config_of("--no-admin").admin
    assert config_of() == GatewayConfig()


@pytest.mark.parametrize("port", [-1, 65536])
def test_no_port(port: int) -> None:
    with pytest.raises(ValueError, match="between 0 and 65535"):
        GatewayConfig(admin_port=port)


def test_help_tells_the_defaults() -> None:
    text = " ".join(api_server.build_parser().format_help().split())
    assert f"/load and /keys (default: {GatewayConfig().admin_host})" in text
    assert "(default: the one after --port, if it is free)" in text


def test_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VFASTML_ADMIN_PORT_NUMBER", "0")
    monkeypatch.setenv("VFASTML_NO_ADMIN", "1")
    config = config_of()
    assert (config.admin, config.admin_port) == (False, 0)


def test_serve_passes_them_on() -> None:
    arguments = ["--admin-port", "0", "--admin-host", "::1", "--no-admin"]
    options = serve.build_parser().parse(arguments)
    options.model_server = []
    gateway, model_server = serve._processes(arguments, options)
    for argument in arguments:
        assert argument in gateway._command
    assert "--no-admin" not in model_server._command
