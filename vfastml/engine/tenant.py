"""On whose behalf requests are dispatched: who lets callers in says it, and dispatching keeps their caches apart."""

from __future__ import annotations

import hmac
from contextvars import ContextVar

import msgspec

from vfastml.engine.dispatch_requests import TextGenerationReq, WorkReq

TENANT: ContextVar[bytes | None] = ContextVar("vfastml.tenant", default=None)
"""A secret of the caller that this task, and those that it starts, work for; None: nobody in particular."""


def kept_apart(request: WorkReq) -> WorkReq:
    """The request, with a cache salt that only requests of the same tenant can have, whatever salt they ask for."""
    tenant = TENANT.get()
    if tenant is None or not isinstance(request, TextGenerationReq):
        return request
    salt = hmac.digest(tenant, request.cache_salt.encode(errors="surrogatepass"), "sha256").hex()
    return msgspec.structs.replace(request, cache_salt=salt)
