"""How a request can be named by somebody else than who waits for it: by what its own caller calls it, and nobody else.

A name becomes a handle, a secret of the caller and the name: another caller with the same name has another one, and a
model server is told no name. A caller without a key has no secret: all such callers share their names, and who sees a
handle can try names on it. It must be so, as every gateway has to make the same handle of a name.
"""

from __future__ import annotations

import hmac
from collections import defaultdict
from collections.abc import Iterable
from contextvars import ContextVar

import msgspec

from vfastml.engine.dispatch_requests import TextGenerationReq, WorkReq
from vfastml.engine.tenant import TENANT

REQUEST_NAME: ContextVar[str | None] = ContextVar("vfastml.request_name", default=None)
"""What the caller calls all that this task, and those that it starts, dispatch; None: nothing."""

_HANDLE_CHARS = 32


def handle_of(name: str) -> str:
    """What the caller's requests of that name have among their handles."""
    tenant = TENANT.get()
    secret = b"" if tenant is None else tenant.secret
    return hmac.digest(secret, name.encode(errors="surrogatepass"), "sha256").hex()[:_HANDLE_CHARS]


def with_handles(request: WorkReq) -> WorkReq:
    """The request, with a handle for each of its names: those in `handles`, its id, and the caller's own."""
    if not isinstance(request, TextGenerationReq):
        return request
    names = dict.fromkeys((request.request_id, REQUEST_NAME.get(), *request.handles))
    handles = [handle_of(name) for name in names if name is not None]
    return msgspec.structs.replace(request, handles=handles)


class HandleIndex:
    """Which open requests have a handle. One caller may have given several the same name."""

    def __init__(self) -> None:
        self._handles: dict[str, list[str]] = {}
        self._requests: defaultdict[str, set[str]] = defaultdict(set)

    def add(self, request_id: str, handles: Iterable[str]) -> None:
        """The request is open."""
        self._handles[request_id] = list(handles)
        for handle in self._handles[request_id]:
            self._requests[handle].add(request_id)

    def remove(self, request_id: str) -> None:
        """It is not open any more; without effect if it never was."""
        for handle in self._handles.pop(request_id, ()):
            others = self._requests[handle]
            others.discard(request_id)
            if not others:
                del self._requests[handle]

    def find(self, handle: str) -> list[str]:
        """The ids of all that have it."""
        return sorted(self._requests.get(handle, ()))
