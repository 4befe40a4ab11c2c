"""The servers that this one is compared with: how each is found, started, and known to be ready."""

from __future__ import annotations

import importlib.util
import os
import shutil
import socket
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

HOST = "127.0.0.1"


class NotAvailable(Exception):
    """Why a peer cannot take part, and what would change that: one line."""


@dataclass(frozen=True)
class Tools:
    """What the command line says about where things are."""

    vllm: str | None = None
    llama_server: str | None = None
    gguf: Path | None = None


@dataclass(frozen=True)
class Task:
    """What every server gets: the same model, precision and room."""

    folder: Path
    name: str
    dtype: str
    cores: int
    """All that this process may use: a server that has to be told how many threads it has gets so many."""
    seats: int
    """Requests that run at a time."""
    row_tokens: int
    """Of the longest prompt and answer together."""
    has_gpu: bool


@dataclass(frozen=True)
class Command:
    """Ready to be started."""

    words: list[str]
    environment: dict[str, str]
    """Beside that of this process."""


@dataclass(frozen=True)
class Peer:
    """One kind of server with OpenAI's API."""

    name: str
    ready_path: str
    """Answers 200 when requests can be served."""
    command: Callable[[Tools, Task, int], Command]
    """For a port. Raises NotAvailable."""


def free_port() -> int:
    """One that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])


def _vfastml(tools: Tools, task: Task, port: int) -> Command:
    words = [sys.executable, "-m", "prebuilt_apps.openai", *_listen("--host", port), "--rpc-port", str(free_port())]
    words += ["--model-uri", str(task.folder), "--served-model-name", task.name, "--dtype", task.dtype]
    return Command(words, {})


def _vllm(tools: Tools, task: Task, port: int) -> Command:
    words = [_program(tools.vllm, "vllm", "--vllm PATH"), "serve", str(task.folder), *_listen("--host", port)]
    words += ["--served-model-name", task.name, "--dtype", task.dtype, "--max-num-seqs", str(task.seats)]
    words += ["--max-model-len", str(max(2048, task.row_tokens))]
    environment = {"HF_HUB_OFFLINE": "1", "VLLM_NO_USAGE_STATS": "1"}
    if not task.has_gpu:
        environment |= {"VLLM_TARGET_DEVICE": "cpu", "VLLM_CPU_KVCACHE_SPACE": "2"}
    return Command(words, environment)


def _llama_cpp(tools: Tools, task: Task, port: int) -> Command:
    program = Path(_program(tools.llama_server, "llama-server", "--llama-server PATH"))
    if tools.gguf is None:
        raise NotAvailable("it needs the model as a GGUF file: --gguf FILE")
    if not tools.gguf.is_file():
        raise NotAvailable(f"there is no file {tools.gguf}; correct --gguf")
    words = [str(program), "--model", str(tools.gguf), "--alias", task.name, *_listen("--host", port), "--no-webui"]
    words += ["--threads", str(task.cores), "--parallel", str(task.seats)]
    words += ["--ctx-size", str(task.seats * max(1024, task.row_tokens))]  # all slots share it
    libraries = [str(program.parent), *filter(None, [os.environ.get("LD_LIBRARY_PATH")])]
    return Command(words, {"LD_LIBRARY_PATH": os.pathsep.join(libraries)})


def _tgi(tools: Tools, task: Task, port: int) -> Command:
    words = [_program(None, "text-generation-launcher", "--peer tgi=URL"), "--model-id", str(task.folder)]
    words += [*_listen("--hostname", port), "--dtype", task.dtype, "--max-concurrent-requests", str(task.seats)]
    return Command(words, {"HF_HUB_OFFLINE": "1"})


def _sglang(tools: Tools, task: Task, port: int) -> Command:
    require_module("sglang", "--peer sglang=URL")
    words = [sys.executable, "-m", "sglang.launch_server", "--model-path", str(task.folder), *_listen("--host", port)]
    words += ["--served-model-name", task.name, "--dtype", task.dtype, "--max-running-requests", str(task.seats)]
    return Command(words + ([] if task.has_gpu else ["--device", "cpu"]), {"HF_HUB_OFFLINE": "1"})


OWN = Peer("vfastml", "/readyz", _vfastml)
"""The one that the others are compared with."""
PEERS = {
    peer.name: peer
    for peer in (
        Peer("vllm", "/health", _vllm),
        Peer("llama.cpp", "/health", _llama_cpp),
        Peer("tgi", "/health", _tgi),
        Peer("sglang", "/health", _sglang),
    )
}


def require_module(name: str, otherwise: str) -> None:
    """Raises NotAvailable if this environment lacks it."""
    if importlib.util.find_spec(name) is None:
        raise NotAvailable(f"this environment has no module {name}; install it, or give {otherwise}")


def _program(given: str | None, name: str, otherwise: str) -> str:
    found = shutil.which(given or name)
    if found is None:
        missing = f"{given} is not a program" if given else f"there is no command {name} in PATH"
        raise NotAvailable(f"{missing}; install it, or give {otherwise}")
    return found


def _listen(host_flag: str, port: int) -> list[str]:
    return [host_flag, HOST, "--port", str(port)]
