"""What the books call a key."""

from __future__ import annotations

import hmac
from functools import lru_cache

from vfastml.engine.tenant import Tenant

NOBODY = ""
"""Whoever calls without a key."""

_CHARS = 16


def key_id_of(tenant: Tenant | None) -> str:
    """The same for as long as the key is the same, whatever it is called: a renamed key keeps its books and its quota,
    and a new key begins new ones, even under an old name. Neither the key nor its digest can be told from it."""
    return NOBODY if tenant is None else _derived(tenant.secret)


@lru_cache(maxsize=4096)
def _derived(secret: bytes) -> str:
    return hmac.digest(secret, b"ledger", "sha256").hex()[:_CHARS]
