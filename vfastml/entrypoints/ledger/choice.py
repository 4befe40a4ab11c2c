"""Whether there are books. Every gateway imports this module, but the ledger's library only those that keep some."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from vfastml.engine.tenant import Tenant
from vfastml.entrypoints.gateway_config import GatewayConfig
from vfastml.entrypoints.keys.key_ring import KeyRing
from vfastml.entrypoints.ledger.quota import Quota, quota_of_key

if TYPE_CHECKING:
    from vfastml.entrypoints.ledger.ledger import Ledger


def ledger_for(config: GatewayConfig, keys: KeyRing) -> Ledger | None:
    """None if nobody asks for one. Raises LedgerError when it cannot be had."""
    if config.ledger is None:
        return None

    def quota_of(tenant: Tenant) -> Quota | None:
        return quota_of_key(keys.key_of(tenant))

    module = import_module("vfastml.entrypoints.ledger.ledger")
    ledger: Ledger = module.Ledger(config.ledger, keep_days=config.ledger_keep_days, quota_of=quota_of)
    return ledger
