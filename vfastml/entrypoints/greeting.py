"""What a gateway says on stdout: where it listens, and how to call it."""

from __future__ import annotations

import contextlib
import socket
import sys

from vfastml.engine.addresses import bracketed


class Greeting:
    """For the operator; `listener` tells which port 0 has become. `admin_url` is that of the admin listener, if there
    is one."""

    def __init__(self, host: str, listener: socket.socket, *, with_key: bool, admin_url: str | None = None) -> None:
        self._url = f"http://{bracketed(host)}:{listener.getsockname()[1]}"
        self._with_key = with_key
        self._admin_url = admin_url

    def tell_address(self) -> None:
        """Once connections are answered there."""
        _say(f"VFastML listens on {self._url}")
        if self._admin_url is not None:
            _say(f"Metrics for Prometheus are at {self._admin_url}/metrics")

    def tell_example(self) -> None:
        """Once there is a model to answer."""
        key = " -H 'Authorization: Bearer YOUR_KEY'" if self._with_key else ""
        body = """{"messages": [{"role": "user", "content": "Hello!"}]}"""
        _say(f"Try: curl {self._url}/v1/chat/completions -H 'Content-Type: application/json'{key} -d '{body}'")


def _say(line: str) -> None:
    # A full disk, or a reader that has gone, is no reason not to serve.
    with contextlib.suppress(OSError):
        sys.stdout.write(f"{line}\n")
        sys.stdout.flush()
