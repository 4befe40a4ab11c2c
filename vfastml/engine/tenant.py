"""On whose behalf requests are dispatched: who lets callers in says it, and dispatching keeps tenants apart, their
caches and their shares of a model's time."""

from __future__ import annotations

import hmac
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any

import msgspec

from vfastml.engine.dispatch_replies import ServedModel
from vfastml.engine.dispatch_requests import ComputedReq, TextGenerationReq, WorkReq

_SHARE_CHARS = 32


@dataclass(frozen=True, slots=True)
class Tenant:
    """Who calls: the owner of one API key. Two are the same if their secrets are."""

    name: str = field(compare=False)
    """Of the key, as operators know it: for books, logs and metrics."""
    secret: bytes = field(repr=False)
    """The key's digest. Neither it nor the name ever reaches a model server."""
    weight: float = field(default=1.0, compare=False)
    """Of this tenant's share of a busy model, beside the shares of others."""
    models: frozenset[str] | None = field(default=None, compare=False)
    """Names of those that it may use; None: all."""

    def may_use(self, model: ServedModel) -> bool:
        """Whether the model is one of its own, by any of its names."""
        return self.models is None or not self.models.isdisjoint((model.id, model.uri, *model.aliases))


TENANT: ContextVar[Tenant | None] = ContextVar("vfastml.tenant", default=None)
"""Whom this task, and those that it starts, work for; None: nobody in particular."""


def kept_apart(request: WorkReq) -> WorkReq:
    """The request, with the share of the model's time that it counts for, and, if it has a cache salt, with one that
    only requests of the same tenant can have, whatever salt they ask for."""
    tenant = TENANT.get()
    if tenant is None or not isinstance(request, ComputedReq):
        return request
    share = hmac.digest(tenant.secret, b"share", "sha512").hex()[:_SHARE_CHARS]
    own: dict[str, Any] = {"share": share, "share_weight": tenant.weight}
    if isinstance(request, TextGenerationReq):
        salt = request.cache_salt.encode(errors="surrogatepass")
        own["cache_salt"] = hmac.digest(tenant.secret, salt, "sha256").hex()
    return msgspec.structs.replace(request, **own)


def share_of(request: WorkReq) -> str:
    """Whose part of a model's time it takes; "" for what takes none, and for all without a tenant."""
    return request.share if isinstance(request, ComputedReq) else ""
