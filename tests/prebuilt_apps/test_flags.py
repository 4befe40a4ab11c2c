"""Flags, their variables, and what is said about wrong ones."""

from __future__ import annotations

from argparse import Namespace
from typing import Any

import pytest

from prebuilt_apps.commands import COMMANDS, parser_of, warn_of_unknown_variables
from prebuilt_apps.flags import FlagParser
from prebuilt_apps.openai import api_server, model_server
from prebuilt_apps.variables import is_service_link, unknown_variables, variable_of
from vfastml.entrypoints.gateway_config import ACCESS_LOGS, GatewayConfig
from vfastml.entrypoints.keys.key_file import read_keys

PARSERS = {command.name: parser_of(command) for command in COMMANDS}

SERVICE_LINKS = [
    "VFASTML_PORT",
    "VFASTML_PORT_80_TCP",
    "VFASTML_PORT_80_TCP_PROTO",
    "VFASTML_PORT_80_TCP_PORT",
    "VFASTML_PORT_80_TCP_ADDR",
    "VFASTML_PORT_6500_UDP_ADDR",
    "VFASTML_SERVICE_HOST",
    "VFASTML_SERVICE_PORT",
    "VFASTML_SERVICE_PORT_HTTP",
    "VFASTML_RPC_PORT",
    "VFASTML_MODEL_SERVER_SERVICE_HOST",
    "VFASTML_MODEL_SERVER_PORT_6500_TCP_ADDR",
]


def parsed(command: str, *arguments: str) -> Namespace:
    return PARSERS[command].parse(list(arguments))


def complaint(capsys: pytest.CaptureFixture[str], command: str, *arguments: str) -> str:
    """The one line that wrong usage leaves with."""
    with pytest.raises(SystemExit) as stop:
        parsed(command, *arguments)
    assert stop.value.code == 2
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith(f"vfastml {command}: error: ")
    return line


@pytest.mark.parametrize("name", SERVICE_LINKS)
def test_names_that_kubernetes_sets(name: str) -> None:
    assert is_service_link(name)


@pytest.mark.parametrize("command", PARSERS)
def test_no_flag_has_a_variable_that_kubernetes_sets(command: str) -> None:
    variables = PARSERS[command].variables()
    assert variables or command == "keys", "its subcommands have them"
    assert [name for name in variables if is_service_link(name)] == []


def test_ports_are_numbers() -> None:
    assert variable_of("port") == "VFASTML_PORT_NUMBER"
    assert {"VFASTML_PORT_NUMBER", "VFASTML_RPC_PORT_NUMBER"} <= set(PARSERS["serve"].variables())


@pytest.mark.parametrize("command", PARSERS)
def test_help_shows_each_variable(command: str) -> None:
    text = " ".join(PARSERS[command].format_help().split())
    for name in PARSERS[command].variables():
        assert f"[env {name}]" in text


@pytest.mark.parametrize(
    ("variable", "text", "value"),
    [
        ("VFASTML_PORT_NUMBER", "9000", 9000),
        ("VFASTML_WORKERS", "4", 4),
        ("VFASTML_MODEL_URI", "./here", "./here"),
        ("VFASTML_DTYPE", "float32", "float32"),
        ("VFASTML_KV_CACHE_MEMORY", "1KiB", 1024),
        ("VFASTML_GPU_MEMORY", "0.4", 0.4),
        ("VFASTML_GPU_MEMORY", "2GiB", 2 << 30),
        ("VFASTML_LOAD_FORMAT", "dummy", "dummy"),
        ("VFASTML_ATTENTION_BACKEND", "sdpa", "sdpa"),
        ("VFASTML_MODEL_FORWARD_KWARGS", '{"top_p": 0.5}', {"top_p": 0.5}),
        ("VFASTML_SERVED_MODEL_NAME", "one, two", ["one", "two"]),
        ("VFASTML_API_KEY", "k1,k2", ["k1", "k2"]),
        ("VFASTML_LOG_LEVEL", "WARN", "warning"),
        ("VFASTML_INSECURE", "1", True),
        ("VFASTML_INSECURE", "True", True),
        ("VFASTML_INSECURE", "yes", True),
        ("VFASTML_INSECURE", "0", False),
        ("VFASTML_INSECURE", "false", False),
        ("VFASTML_INSECURE", "no", False),
        ("VFASTML_MAX_NUM_SEQS", "", None),
    ],
)
def test_variable_stands_for_a_flag(monkeypatch: pytest.MonkeyPatch, variable: str, text: str, value: Any) -> None:
    monkeypatch.setenv(variable, text)
    assert getattr(parsed("serve"), PARSERS["serve"].variables()[variable].dest) == value


def test_flag_before_variable_before_default(monkeypatch: pytest.MonkeyPatch) -> None:
    assert parsed("serve").port == 8080
    monkeypatch.setenv("VFASTML_PORT_NUMBER", "9000")
    assert parsed("serve").port == 9000
    assert parsed("serve", "--port", "9001").port == 9001
    monkeypatch.setenv("VFASTML_PORT_NUMBER", "nonsense")
    assert parsed("serve", "--port", "9001").port == 9001


def test_repeated_flag_replaces_its_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    assert parsed("api-server", "--api-key", "a", "--api-key", "b").api_key == ["a", "b"]
    monkeypatch.setenv("VFASTML_API_KEY", "k1,k2")
    assert parsed("api-server", "--api-key", "a", "--api-key", "b").api_key == ["a", "b"]


@pytest.mark.parametrize(
    ("variable", "text"),
    [
        ("VFASTML_PORT_NUMBER", "tcp://10.0.0.1:80"),
        ("VFASTML_WORKERS", "two"),
        ("VFASTML_DTYPE", "int3"),
        ("VFASTML_GPU_MEMORY", "50%"),
        ("VFASTML_LOAD_FORMAT", "pt"),
        ("VFASTML_ATTENTION_BACKEND", "vllm"),
        ("VFASTML_INSECURE", "maybe"),
        ("VFASTML_MAX_NUM_SEQS", "0"),
        ("VFASTML_DRAIN_TIMEOUT", "-1"),
        ("VFASTML_LOG_LEVEL", "loud"),
        ("VFASTML_MODEL_LOAD_KWARGS", "{"),
        ("VFASTML_ACCESS_LOG", "some"),
    ],
)
def test_wrong_variable_is_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], variable: str, text: str
) -> None:
    monkeypatch.setenv(variable, text)
    assert f"variable {variable}: " in complaint(capsys, "serve")


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--max-seqs", "3"], "unknown flag --max-seqs; did you mean --max-num-seqs?"),
        (["--model_uri=x"], "unknown flag --model_uri; did you mean --model-uri?"),
        (["--model", "x"], "did you mean --model-uri?"),
        (["--zzzzzzzz"], "unknown flag --zzzzzzzz (see"),
        (["now"], "unexpected argument 'now'"),
        (["--port", "65536"], "--port: a port is a number between 0 and 65535"),
        (["--port"], "--port: expected one argument"),
        (["--max-num-seqs", "-1"], "--max-num-seqs: must be a whole number, at least 1"),
        (["--model-forward-kwargs", "[1]"], "--model-forward-kwargs: must be a JSON object"),
        (["--model-forward-kwargs", "{'a': 1}"], "--model-forward-kwargs: is no JSON"),
        (["--gpu-memory", "half"], "--gpu-memory: expected a share of the GPU, such as 0.5, or an amount of memory"),
        (["--load-format", "pt"], "--load-format: invalid choice: 'pt'"),
        (["--attention-backend", "vllm"], "--attention-backend: invalid choice: 'vllm'"),
        (["--drain-timeout", "inf"], "--drain-timeout: seconds are a number"),
    ],
)
def test_wrong_flag_is_one_line(capsys: pytest.CaptureFixture[str], arguments: list[str], expected: str) -> None:
    assert expected in complaint(capsys, "serve", *arguments)


@pytest.mark.rule("S10")
def test_wrong_key_is_not_shown(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert "geheim" not in complaint(capsys, "api-server", "--api-key", "geheim nis")
    monkeypatch.setenv("VFASTML_API_KEY", "geheim nis")
    assert "geheim" not in complaint(capsys, "api-server")
    assert "geheim" not in PARSERS["api-server"].format_help()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["a", "--max-tokens", "1", "b"], ["a", "b"]),
        (["--max-tokens", "1", "a", "b"], ["a", "b"]),
        (["--max-tokens", "1", "--", "a", "-b", "--c"], ["a", "-b", "--c"]),
        ([], []),
    ],
)
def test_words_and_flags_in_any_order(arguments: list[str], words: list[str]) -> None:
    assert parsed("chat", *arguments).message == words


@pytest.mark.parametrize("spelling", ["--log-level", "--log_level", "--loglevel"])
def test_spellings_of_log_level(monkeypatch: pytest.MonkeyPatch, spelling: str) -> None:
    monkeypatch.setenv("VFASTML_LOG_LEVEL", "error")
    assert parsed("serve", spelling, "Debug").log_level == "debug"
    assert "--log_level" not in PARSERS["serve"].format_help()


def warnings_of(capsys: pytest.CaptureFixture[str], parser: FlagParser) -> list[str]:
    warn_of_unknown_variables(parser)
    return capsys.readouterr().err.splitlines()


def test_unknown_variable_is_one_warning(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("VFASTML_MAX_SEQS", "3")
    assert warnings_of(capsys, PARSERS["serve"]) == [
        "vfastml serve: warning: the variable VFASTML_MAX_SEQS is not known; did you mean VFASTML_MAX_NUM_SEQS?"
    ]


def test_known_variables_and_service_links_give_no_warning(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("VFASTML_CACHE", "/somewhere")
    monkeypatch.setenv("VFASTML_TEMPERATURE", "0")  # of another command
    for name in SERVICE_LINKS:
        monkeypatch.setenv(name, "tcp://10.0.0.1:80")
    assert warnings_of(capsys, PARSERS["api-server"]) == []


def test_a_bare_number_is_no_service_link() -> None:
    known = {"VFASTML_PORT_NUMBER"}
    assert unknown_variables({"VFASTML_PORT": "tcp://10.0.0.1:80", "VFASTML_SERVICE_PORT": "80"}, known) == []
    assert unknown_variables({"VFASTML_PORT": "80"}, known) == ["VFASTML_PORT"]


def test_dtype_goes_with_the_load_kwargs() -> None:
    def kwargs(*arguments: str) -> dict[str, Any]:
        return model_server.load_kwargs(parsed("model-server", *arguments))

    assert kwargs() == {}
    assert kwargs("--dtype", "float32") == {"dtype": "float32"}
    assert kwargs("--model-load-kwargs", '{"revision": "r"}', "--dtype", "float16") == {
        "revision": "r",
        "dtype": "float16",
    }
    assert kwargs("--model-load-kwargs", '{"dtype": "float16"}') == {"dtype": "float16"}
    for name in ("dtype", "torch_dtype"):
        with pytest.raises(ValueError, match="both name a dtype"):
            kwargs("--model-load-kwargs", f'{{"{name}": "float16"}}', "--dtype", "float32")


@pytest.mark.parametrize("command", ["serve", "model-server"])
def test_a_token_comes_by_a_variable_alone(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], command: str
) -> None:
    line = complaint(capsys, command, "--model-load-kwargs", '{"token": "geheim"}')
    assert "HF_ACCESS_TOKEN" in line
    assert "geheim" not in line
    monkeypatch.setenv("VFASTML_MODEL_LOAD_KWARGS", '{"token": "t"}')
    assert parsed(command).model_load_kwargs == {"token": "t"}


def test_gateway_settings(tmp_path: Any) -> None:
    file = tmp_path / "keys"
    file.write_text("# of the team\nk2\n\n  k3  \n")
    arguments = ["--api-key", "k1", "--api-key-file", str(file), "--cors-origin", "https://a.example"]
    arguments += ["--cors-origin", "https://b.example", "--root-path", "/llm", "--access-log", "all"]
    arguments += ["--max-step", "90"]
    settings = api_server.settings_of(parsed("api-server", *arguments))
    assert settings["api_keys"] == ["k1"]
    assert settings["api_key_file"] == str(file), "gateways read it themselves"
    assert [key.name[:4] for key in read_keys(file)] == ["key-", "key-"]
    assert settings["cors_origins"] == ["https://a.example", "https://b.example"]
    assert (settings["root_path"], settings["access_log"], settings["max_step_s"]) == ("/llm", "all", 90)
    assert "model_servers" not in settings, "GatewayConfig has the default"


def test_help_tells_the_defaults_of_the_gateway() -> None:
    defaults, text = GatewayConfig(), " ".join(PARSERS["api-server"].format_help().split())
    assert f"repeatable (default: {' '.join(defaults.model_servers)})" in text
    assert f"or none (default: {defaults.access_log})" in text
    assert PARSERS["api-server"].variables()["VFASTML_ACCESS_LOG"].choices == ACCESS_LOGS
    assert parsed("api-server").max_step == parsed("health").max_step == defaults.max_step_s


@pytest.mark.parametrize(
    ("content", "expected"),
    [(None, "cannot be read: No such file"), (b"# none\n", "no key"), (b"a b\n", "no commas"), (b"\xff", "not text")],
)
def test_bad_key_file(tmp_path: Any, content: bytes | None, expected: str) -> None:
    file = tmp_path / "keys"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(ValueError, match=expected):
        api_server.settings_of(parsed("api-server", "--api-key-file", str(file)))


@pytest.mark.rule("S3")
@pytest.mark.parametrize("variable", ["VFASTML_API_KEY", "VFASTML_API_KEY_FILE"])
def test_a_key_that_did_not_arrive_is_no_open_door(monkeypatch: pytest.MonkeyPatch, variable: str) -> None:
    monkeypatch.setenv(variable, "")
    with pytest.raises(ValueError, match=f"{variable} is empty"):
        api_server.settings_of(parsed("api-server"))
    assert api_server.settings_of(parsed("api-server", "--api-key", "k"))["api_keys"] == ["k"]
