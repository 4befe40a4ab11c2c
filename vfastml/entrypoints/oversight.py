"""What a gateway knows of its callers and shows to its operators: keys, limits, books, metrics and traces."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from typing import Any

from vfastml.engine.dispatch_engine import DispatchEngine
from vfastml.engine.request_observer import RequestObserver
from vfastml.engine.tenant import Tenant
from vfastml.entrypoints.admin.admin_hooks import AdminHooks
from vfastml.entrypoints.gateway_config import GatewayConfig
from vfastml.entrypoints.keys.api_key import ApiKey
from vfastml.entrypoints.keys.balances import Balances
from vfastml.entrypoints.keys.key_limits import KeyLimits, revoked
from vfastml.entrypoints.keys.key_report import key_report
from vfastml.entrypoints.keys.key_ring import KeyRing
from vfastml.entrypoints.keys.quota import Quota, check_ledger_for, quota_of_key
from vfastml.entrypoints.ledger.choice import ledger_for
from vfastml.entrypoints.ledger.errors import LedgerError
from vfastml.entrypoints.ledger.key_id import key_id_of
from vfastml.entrypoints.metrics.gateway_metrics import GatewayMetrics
from vfastml.entrypoints.request_notes import TokenNotes
from vfastml.entrypoints.tracing.choice import tracing_for
from vfastml.utils.rare_warning import RareWarning

_log = logging.getLogger(__name__)


class Oversight:
    """Of one gateway process, as its configuration asks for it. `shared_balances` is the descriptor of the memory that
    the workers of one supervisor have in common.

    Raises ValueError or LedgerError, with a sentence for the operator, when keys, books or traces cannot be had.
    """

    def __init__(
        self, config: GatewayConfig, engine: Callable[[], DispatchEngine], shared_balances: int | None = None
    ) -> None:
        self._config = config
        self._engine = engine
        self.keys = KeyRing(config.api_keys, config.api_key_file, self._check_keys)
        self.limits = KeyLimits(self.keys, Balances(shared_balances), config.max_open_per_key)
        self.tracing = tracing_for(config)
        self.ledger = ledger_for(config.ledger, config.ledger_keep_days, self._quota_of)
        self.metrics = GatewayMetrics(engine) if config.admin else None
        self.admin_hooks = AdminHooks(self.keys.is_admin, self._keys_and_use)
        self._watching: asyncio.Task[None] | None = None
        self._unreadable = RareWarning(_log)

    @property
    def notes_requests(self) -> bool:
        """Whether log lines tell more of a request than a sentence holds."""
        return self._config.log_format == "json" and self._config.access_log != "off"

    def observers(self) -> list[RequestObserver]:
        """Of each request, in the order in which they are told. Traces come first: they are to see what others
        refuse."""
        return [
            *([] if self.tracing is None else [self.tracing.observer()]),
            *([] if self.keys.is_open else [self.limits]),
            *(() if self.ledger is None else self.ledger.observers),
            *([] if self.metrics is None else [self.metrics.requests]),
            *([TokenNotes()] if self.notes_requests else []),
        ]

    def start(self) -> None:
        """In the event loop."""
        if self.ledger is not None:
            self.ledger.start()
        self._watching = asyncio.create_task(self.keys.watch(self._on_revoked))

    async def close(self) -> None:
        """Once no request is open any more."""
        if self._watching is not None:
            self._watching.cancel()
        if self.ledger is not None:
            await self.ledger.close()
        if self.tracing is not None:
            await asyncio.to_thread(self.tracing.close)

    def _on_revoked(self, tenant: Tenant) -> None:
        self._engine().end_requests_of(tenant, revoked())

    def _quota_of(self, tenant: Tenant) -> Quota | None:
        return quota_of_key(self.keys.key_of(tenant))

    def _check_keys(self, keys: Sequence[ApiKey]) -> None:
        check_ledger_for(keys, self._config.ledger)

    async def _keys_and_use(self) -> Sequence[dict[str, Any]]:
        used = await self._used()
        reports = []
        for key in self.keys.all_keys():
            tenant = key.tenant()
            reports.append(key_report(key, self.limits.levels(tenant), used.get(key_id_of(tenant))))
        return reports

    async def _used(self) -> dict[str, dict[str, int]]:
        """Counts by key id."""
        if self.ledger is None:
            return {}
        try:
            return {one.key_id: one.counts() for one in await self.ledger.usage_of_keys()}
        except LedgerError as error:  # what keys may do is known without it
            self._unreadable.warn("Keys are shown without what they have used: the ledger cannot be read: %s.", error)
            return {}
