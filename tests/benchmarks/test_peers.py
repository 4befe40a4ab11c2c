from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.peers import OWN, PEERS, NotAvailable, Task, Tools, free_port, require_module
from benchmarks.turn_times import TurnTimes
from prebuilt_apps.openai.__main__ import build_parser

TASK = Task(folder=Path("/models/m"), name="m", dtype="bfloat16", cores=3, seats=32, row_tokens=600, has_gpu=False)


@pytest.fixture
def tools(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Tools:
    """Programs that exist, in a PATH of their own."""
    for name in ("vllm", "llama-server", "text-generation-launcher"):
        (tmp_path / name).touch(mode=0o755)
    (tmp_path / "m.gguf").touch()
    monkeypatch.setenv("PATH", str(tmp_path))
    return Tools(gguf=tmp_path / "m.gguf")


def after(words: list[str], flag: str) -> str:
    return words[words.index(flag) + 1]


def test_vllm_on_a_cpu(tools: Tools, tmp_path: Path) -> None:
    command = PEERS["vllm"].command(tools, TASK, 5000)
    assert command.words[:3] == [str(tmp_path / "vllm"), "serve", "/models/m"]
    assert (after(command.words, "--max-model-len"), after(command.words, "--max-num-seqs")) == ("2048", "32")
    assert (after(command.words, "--served-model-name"), after(command.words, "--port")) == ("m", "5000")
    assert command.environment["VLLM_CPU_KVCACHE_SPACE"] == "2"


def test_llama_cpp_has_room_for_every_slot_and_its_own_libraries(
    tools: Tools, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LD_LIBRARY_PATH", "/other")
    command = PEERS["llama.cpp"].command(tools, TASK, 5000)
    assert after(command.words, "--model") == str(tmp_path / "m.gguf")
    assert (after(command.words, "--parallel"), after(command.words, "--ctx-size")) == ("32", "32768")
    assert after(command.words, "--threads") == "3"
    assert command.environment["LD_LIBRARY_PATH"] == f"{tmp_path}:/other"


def test_tgi(tools: Tools) -> None:
    assert after(PEERS["tgi"].command(tools, TASK, 5000).words, "--model-id") == "/models/m"


@pytest.mark.parametrize(
    ("name", "tools", "said"),
    [
        ("vllm", Tools(), "there is no command vllm in PATH; install it, or give --vllm PATH"),
        ("vllm", Tools(vllm="/no/vllm"), "/no/vllm is not a program; install it, or give --vllm PATH"),
        ("llama.cpp", Tools(), "there is no command llama-server in PATH"),
        ("tgi", Tools(), "there is no command text-generation-launcher in PATH; install it, or give --peer tgi=URL"),
    ],
)
def test_what_is_not_installed(
    name: str, tools: Tools, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(NotAvailable, match=said):
        PEERS[name].command(tools, TASK, 5000)


@pytest.mark.parametrize(("gguf", "said"), [(None, "--gguf FILE"), (Path("/no.gguf"), "there is no file /no.gguf")])
def test_llama_cpp_needs_the_model_in_its_format(tools: Tools, gguf: Path | None, said: str) -> None:
    with pytest.raises(NotAvailable, match=said):
        PEERS["llama.cpp"].command(Tools(gguf=gguf), TASK, 5000)


def test_a_module_that_is_not_there() -> None:
    require_module("json", "nothing")
    with pytest.raises(NotAvailable, match="no module nosuchmodule; install it, or give --peer x=URL"):
        require_module("nosuchmodule", "--peer x=URL")


def test_this_server_understands_what_it_is_started_with() -> None:
    command = OWN.command(Tools(), TASK, 5000)
    options = build_parser().parse(command.words[3:])
    assert (options.model_uri, options.served_model_name, options.port) == ("/models/m", ["m"], 5000)
    assert options.rpc_port not in (0, 5000, 6500)


def test_a_free_port_is_free() -> None:
    assert 1024 < free_port() < 1 << 16


def test_time_left_is_learnt_from_each_server_and_guessed_for_the_others() -> None:
    times = TurnTimes(["fast", "slow"], repeats=2)
    times.took("fast", 30.0, is_out=False)
    assert times.left_s() == pytest.approx(30 + 2 * 30)
    assert times.left() == "about 2 min left"
    times.took("slow", 90.0, is_out=False)
    assert times.left_s() == pytest.approx(30 + 90)
    times.took("fast", 10.0, is_out=False)
    assert times.left_s() == pytest.approx(90)
    times.took("slow", 5.0, is_out=True)
    assert times.left() == "done"
