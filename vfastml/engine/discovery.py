"""Where the model servers are: today a fixed list, given by the operator."""

from __future__ import annotations

import os
from collections.abc import Iterable
from urllib.parse import urlsplit

from vfastml.engine.addresses import MAX_IPC_PATH_BYTES

_EXPECTED = "expected tcp://host:port or ipc://path"


def static_endpoints(endpoints: Iterable[str]) -> tuple[str, ...]:
    """The endpoints, checked, in order; paths of socket files are made absolute. Raises ValueError, with a message for
    a command line, for a malformed or repeated one or when there is none."""
    checked = tuple(_checked(endpoint.strip()) for endpoint in endpoints)
    if not checked:
        raise ValueError(f"no model server endpoint given: {_EXPECTED}")
    repeated = {endpoint for endpoint in checked if checked.count(endpoint) > 1}
    if repeated:
        raise ValueError(f"model server endpoint given twice: {', '.join(sorted(repeated))}")
    return checked


def _checked(endpoint: str) -> str:
    if _is_ipc(endpoint):
        return ipc_endpoint(endpoint.removeprefix("ipc://"))
    if not _is_tcp(endpoint):
        raise ValueError(f"bad model server endpoint {endpoint!r}: {_EXPECTED}")
    return endpoint


def ipc_endpoint(path: str) -> str:
    """Of a socket file. Raises ValueError for a path that is too long."""
    absolute = os.path.abspath(path)
    if len(os.fsencode(absolute)) > MAX_IPC_PATH_BYTES:
        raise ValueError(f"the path of model server endpoint {path!r} is longer than {MAX_IPC_PATH_BYTES} bytes")
    return f"ipc://{absolute}"


def _is_tcp(endpoint: str) -> bool:
    try:
        parts = urlsplit(endpoint)
        host, port = parts.hostname, parts.port
    except ValueError:
        return False
    return parts.scheme == "tcp" and bool(host) and bool(port) and host != "*" and f"tcp://{parts.netloc}" == endpoint


def _is_ipc(endpoint: str) -> bool:
    return endpoint.startswith("ipc://") and len(endpoint) > len("ipc://")
