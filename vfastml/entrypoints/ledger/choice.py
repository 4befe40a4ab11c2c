"""Whether there are books. Every gateway imports this module, but the ledger's library only those that keep some."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import TYPE_CHECKING

from vfastml.engine.tenant import Tenant
from vfastml.entrypoints.keys.quota import Quota

if TYPE_CHECKING:
    from vfastml.entrypoints.ledger.ledger import Ledger


def ledger_for(path: str | None, keep_days: int, quota_of: Callable[[Tenant], Quota | None]) -> Ledger | None:
    """None if nobody asks for one. Raises LedgerError when it cannot be had."""
    if path is None:
        return None
    ledger: Ledger = import_module("vfastml.entrypoints.ledger.ledger").Ledger(
        path, keep_days=keep_days, quota_of=quota_of
    )
    return ledger
