"""How model servers start, refuse to start, stop and break, as processes."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from transformers import BertConfig, BertModel

from prebuilt_apps.openai.model_server import main
from tests.e2e.service import free_port
from tests.models_servers.raw_gateway import RawGateway
from tests.models_servers.started_process import PATIENCE_S, ROOT, StartedProcess, complaints
from vfastml.engine.dispatch_replies import Accepted, Delta, Failed, Finished, Goaway, Hello, StepReply
from vfastml.engine.dispatch_requests import TextGenerationReq

STUB = "tests.models_servers.stub_server"
MAIN = "prebuilt_apps.openai.model_server"
REQUEST = TextGenerationReq(request_id="a", prompt="x")
STOPS = [signal.SIGTERM, signal.SIGINT]


def asked(gateway: RawGateway) -> None:
    """The request is open."""
    assert isinstance(gateway.next(), Hello)
    gateway.send(REQUEST)
    assert gateway.next() == Accepted("a", 1)


def the_end(gateway: RawGateway) -> Finished | Failed:
    """Of the request."""
    reply = gateway.next()
    while isinstance(reply, Goaway) or (isinstance(reply, StepReply) and not reply.ended):
        reply = gateway.next()
    assert isinstance(reply, StepReply)
    return reply.ended[0]


# -- stopping


@pytest.mark.parametrize("stop", STOPS)
def test_idle_server_stops_with_0(tmp_path: Path, stop: signal.Signals) -> None:
    with StartedProcess(tmp_path / "log", STUB, "Silent", 0) as server:
        server.wait_for("is ready")
        server.process.send_signal(stop)
        assert server.status() == 0
        assert complaints(server.output) == []


@pytest.mark.parametrize("stop", STOPS)
@pytest.mark.parametrize("name", ["LoadHangs", "LoadSwallowsExit", "LoadBreaksAtExit"])
def test_loading_server_stops_with_0(tmp_path: Path, name: str, stop: signal.Signals) -> None:
    with StartedProcess(tmp_path / "log", STUB, name, 0) as server:
        server.wait_for("hanging")
        server.process.send_signal(stop)
        assert server.status() == 0
        assert complaints(server.output) == []


@pytest.mark.parametrize("stop", STOPS)
def test_text_server_that_imports_stops_with_0(tmp_path: Path, stop: signal.Signals) -> None:
    with StartedProcess(tmp_path / "log", MAIN, "--model-uri", tmp_path / "never-looked-at") as server:
        server.wait_for("loading torch")
        server.process.send_signal(stop)
        assert server.status() in (0, 1)  # 1: the import was over, and the folder missed
        assert "Traceback" not in server.output


def test_draining_server_finishes_what_is_open(tmp_path: Path) -> None:
    port = free_port()
    with StartedProcess(tmp_path / "log", STUB, "Late", port) as server, RawGateway(port) as gateway:
        asked(gateway)
        server.process.terminate()
        assert gateway.next() == Goaway("shutting down")
        gateway.send(TextGenerationReq(request_id="b", prompt="x"))
        refused = the_end(gateway)
        assert isinstance(refused, Failed)
        assert (refused.request_id, refused.kind) == ("b", "InternalServerTooBusyError")
        assert gateway.next() == StepReply([Delta("a", text="late", finish_reason="stop")], [Finished("a")])
        assert server.status() == 0


def test_drain_that_takes_too_long_fails_the_rest(tmp_path: Path) -> None:
    port = free_port()
    with StartedProcess(tmp_path / "log", STUB, "Silent", port, 0.3) as server, RawGateway(port) as gateway:
        asked(gateway)
        server.process.terminate()
        failed = the_end(gateway)
        assert isinstance(failed, Failed)
        assert (failed.request_id, failed.kind) == ("a", "InternalServerTooBusyError")
        assert server.status() == 0
        assert "1 requests open" in server.output


@pytest.mark.parametrize("stop", STOPS)
def test_second_signal_ends_the_drain(tmp_path: Path, stop: signal.Signals) -> None:
    port = free_port()
    with StartedProcess(tmp_path / "log", STUB, "Silent", port, 10_000) as server, RawGateway(port) as gateway:
        asked(gateway)
        server.process.send_signal(stop)
        assert gateway.next() == Goaway("shutting down")
        server.process.send_signal(stop)
        assert isinstance(the_end(gateway), Failed)
        assert server.status() == 0


# -- breaking


@pytest.mark.rule("S12")
@pytest.mark.parametrize("name", ["StepBreaks", "LazyStepBreaks"])
def test_broken_model_exits_with_70_and_its_requests_end(tmp_path: Path, name: str) -> None:
    port = free_port()
    with StartedProcess(tmp_path / "log", STUB, name, port) as server, RawGateway(port) as gateway:
        asked(gateway)
        failed = the_end(gateway)
        assert isinstance(failed, Failed)
        assert "cheese" not in failed.message
        assert server.status() == 70
        assert "out of cheese" in server.output
        assert "status 70" in server.output


@pytest.mark.parametrize("name", ["LoadBreaks", "CloseNeedsLoad"])
def test_any_error_of_loading_is_one_line(tmp_path: Path, name: str) -> None:
    with StartedProcess(tmp_path / "log", STUB, name, 0) as server:
        assert server.status() == 1
        [line] = complaints(server.output)
        assert "stub failed while loading weights (RuntimeError: first line second line" in line
        assert len(line) < 700


TEXT_SERVER_THAT_BREAKS = """
from vfastml import TextGenerationModelServerHF
from vfastml.text_engine.engine_config import EngineConfig

class Breaks(TextGenerationModelServerHF):
    def step(self):
        raise RuntimeError("out of cheese")

config = EngineConfig(kv_cache_memory=2_000_000, measure_limits="never")
Breaks(model_uri={folder!r}, rpc_port={port}, engine_config=config).run_forever()
"""


@pytest.mark.rule("S12")
def test_broken_text_model_exits_with_70(tmp_path: Path, tiny_models: dict[str, Path]) -> None:
    port = free_port()
    (tmp_path / "breaks.py").write_text(TEXT_SERVER_THAT_BREAKS.format(folder=str(tiny_models["llama"]), port=port))
    with (tmp_path / "log").open("wb") as log:
        server = subprocess.Popen([sys.executable, tmp_path / "breaks.py"], stderr=log, cwd=ROOT)
    try:
        with RawGateway(port) as gateway:
            asked(gateway)
            assert isinstance(the_end(gateway), Failed)
        assert server.wait(PATIENCE_S) == 70
        assert "out of cheese" in (tmp_path / "log").read_text()
    finally:
        server.kill()
        server.wait(PATIENCE_S)


# -- starts that fail

Case = tuple[list[str], list[str]]
"""Arguments, and words of the one line that they lead to."""


def damaged(model: Path, folder: Path, change: Callable[[Path], None]) -> str:
    """The uri of a copy of the model with something wrong in it."""
    shutil.copytree(model, folder)
    change(folder)
    return str(folder)


def configured(**fields: object) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        config = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps(config | fields))

    return change


def poisoned(model_type: str) -> Callable[[Path], None]:
    """Code that leaves a file behind if it is run."""

    def change(folder: Path) -> None:
        auto_map = {"AutoConfig": "poison.Config", "AutoModelForCausalLM": "poison.Model", "AutoTokenizer": "poison.T"}
        configured(model_type=model_type, auto_map=auto_map)(folder)
        (folder / "poison.py").write_text(
            f"open({str(folder / 'canary')!r}, 'w')\n"
            "from transformers import LlamaConfig as Config, LlamaModel as Model, LlamaTokenizer as T\n"
        )

    return change


def text_file(name: str, content: str) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        (folder / name).write_text(content)

    return change


def bert(folder: Path) -> None:
    config = BertConfig(
        vocab_size=259, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16
    )
    BertModel(config).save_pretrained(folder)


def damaged_uris(model: Path, folder: Path) -> dict[str, Case]:
    def case(name: str, change: Callable[[Path], None], *words: str) -> Case:
        return ["--model-uri", damaged(model, folder / name, change)], [name, *words]

    return {
        "no config": case("bare", lambda copy: (copy / "config.json").unlink(), "config.json"),
        "no safetensors": case("light", lambda copy: (copy / "model.safetensors").unlink(), "safetensors"),
        "torn safetensors": case("torn", text_file("model.safetensors", "x" * 5000), "loading weights"),
        "torn tokenizer": case("mute", text_file("tokenizer.json", '{"version": '), "loading the tokenizer"),
        "torn config": case("half", text_file("config.json", '{"model_type": '), "JSON"),
        "unknown type": case("alien", configured(model_type="nonesuch"), "unknown model type"),
        "own code": case("poisonous", poisoned("nonesuch"), "code of its own"),
        "encoder": case("encoder", bert, "BertModel", "does not generate"),
    }


@pytest.fixture(scope="module")
def cases(tiny_models: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Case]:
    folder = tmp_path_factory.mktemp("damaged")
    good = ["--model-uri", str(tiny_models["llama"])]
    return damaged_uris(tiny_models["llama"], folder) | {
        "missing folder": (["--model-uri", "./not-here/"], ["no folder"]),
        "unknown builtin": (["--model-uri", "builtin:nope"], ["smollm2-135m-instruct"]),
        "unknown scheme": (["--model-uri", "gs://bucket/model"], ["builtin:NAME"]),
        "hub while offline": (["--model-uri", "nobody/nothing"], ["nobody/nothing", "local folder"]),
        "missing gguf": (["--model-uri", "./not-here.gguf"], ["no file"]),
        "device": ([*good, "--device", "cuda:7"], ["no device cuda:7"]),
        "no such device": ([*good, "--device", "abacus"], ["device 'abacus' is not known", "cpu"]),
        "kv cache too small": ([*good, "--kv-cache-memory", "100B"], ["--kv-cache-memory"]),
        "kv cache too small for the length": (
            [*good, "--kv-cache-memory", "100kB", "--max-model-len", "4000"],
            ["--max-model-len", "--kv-cache-memory"],
        ),
        "gpu memory of a cpu": (
            [*good, "--device", "cpu", "--gpu-memory", "0.5"],
            ["--gpu-memory is for a GPU", "cpu"],
        ),
        "attention of gpus": (
            [*good, "--device", "cpu", "--attention-backend", "flash"],
            ["--attention-backend flash cannot be had", "does not run on cpu", "sdpa"],
        ),
        "too long": ([*good, "--max-model-len", "1000000"], ["--max-model-len", "4096"]),
        "wide": ([*good, "--rpc-host", "0.0.0.0"], ["--insecure"]),
        "no such address": ([*good, "--rpc-host", "192.0.2.1", "--insecure"], ["192.0.2.1"]),
        "host name": ([*good, "--rpc-host", "nowhere.invalid", "--insecure"], ["nowhere.invalid"]),
    }


@pytest.fixture(scope="module")
def outcomes(cases: dict[str, Case], tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[int, str]]:
    """Exit status and output of each."""
    folder = tmp_path_factory.mktemp("starts")
    (folder / "cases.json").write_text(json.dumps([[*arguments, "--rpc-port", "0"] for arguments, _ in cases.values()]))
    command = [sys.executable, "-m", "tests.models_servers.failing_starts", str(folder)]
    subprocess.run(command, cwd=ROOT, check=True, timeout=2 * PATIENCE_S)
    statuses = json.loads((folder / "statuses.json").read_text())
    return {
        name: (status, (folder / f"{number}.log").read_text())
        for number, (name, status) in enumerate(zip(cases, statuses, strict=True))
    }


def test_failed_start_exits_with_1_and_says_in_one_line_what_to_do(
    cases: dict[str, Case], outcomes: dict[str, tuple[int, str]]
) -> None:
    for name, (status, output) in outcomes.items():
        lines = complaints(output)
        assert (name, status, len(lines)) == (name, 1, 1), output
        assert " ERROR " in lines[0]
        for word in cases[name][1]:
            assert word in lines[0], name


@pytest.mark.rule("S9")
def test_code_of_a_model_is_not_run(cases: dict[str, Case], outcomes: dict[str, tuple[int, str]]) -> None:
    assert outcomes["own code"][0] == 1
    folder = Path(cases["own code"][0][1])
    assert (folder / "poison.py").exists()
    assert not (folder / "canary").exists()


@pytest.mark.rule("S9")
def test_code_beside_a_known_model_is_not_run(tiny_models: dict[str, Path], tmp_path: Path) -> None:
    folder = Path(damaged(tiny_models["llama"], tmp_path / "known", poisoned("llama")))
    arguments = ["--model-uri", folder, "--rpc-port", 0, "--kv-cache-memory", "2MB", "--dtype", "float32"]
    with StartedProcess(tmp_path / "log", MAIN, *arguments) as server:
        server.wait_for("known is ready")
        assert "Loading weights" not in server.output  # no progress bars in a log
        assert complaints(server.output) == []
        server.process.terminate()
        assert server.status() == 0
    assert not (folder / "canary").exists()


# -- addresses and flags


def test_taken_port_is_one_line(tmp_path: Path) -> None:
    port = free_port()
    with StartedProcess(tmp_path / "first", STUB, "Silent", port) as first:
        first.wait_for("is ready")
        with StartedProcess(tmp_path / "second", STUB, "Silent", port) as second:
            assert second.status() == 1
            [line] = complaints(second.output)
            assert f"port {port} is in use" in line
        with RawGateway(port) as gateway:
            assert isinstance(gateway.next(), Hello)


@pytest.mark.rule("S2")
def test_wide_address_is_possible_when_meant(tmp_path: Path, tiny_models: dict[str, Path]) -> None:
    port = free_port()
    arguments = ["--model-uri", tiny_models["llama"], "--kv-cache-memory", "2MB", "--rpc-port", port]
    with StartedProcess(tmp_path / "log", MAIN, *arguments, "--rpc-host", "0.0.0.0", "--insecure") as server:
        with RawGateway(port) as gateway:
            assert isinstance(gateway.next(), Hello)
        server.process.send_signal(signal.SIGINT)
        assert server.status() == 0


@pytest.mark.parametrize(
    "arguments",
    [
        ["--no-such-flag"],
        ["--model", "x"],
        ["--rpc-port", "99999"],
        ["--rpc-port", "x"],
        ["--dtype", "int3"],
        ["--kv-cache-memory", "much"],
        ["--max-model-len", "0"],
        ["--max-step", "0"],
    ],
)
def test_wrong_flag_exits_with_2(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main(arguments)
    assert stop.value.code == 2
    assert arguments[0] in capsys.readouterr().err


def test_help_and_wrong_flags_do_not_wait_for_torch() -> None:
    code = (
        "import sys; from prebuilt_apps.openai import model_server as m; m.build_parser().format_help();"
        "print({'torch', 'transformers', 'fastapi'} & set(sys.modules))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout == "set()\n"
