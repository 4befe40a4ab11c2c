"""Quotas, held against the books and what is under way in this process."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from datetime import datetime

from vfastml.engine.dispatch_replies import Delta
from vfastml.engine.request_observer import ObservedRequest, SilentObserver
from vfastml.engine.tenant import Tenant
from vfastml.entrypoints.keys.quota import Period, Quota, renewal
from vfastml.entrypoints.ledger.books import TokensUsed, utc_now
from vfastml.entrypoints.ledger.entry import Entry, is_booked
from vfastml.entrypoints.ledger.key_id import key_id_of
from vfastml.errors import QuotaLimitError

QuotaOf = Callable[[Tenant], Quota | None]
"""A caller's quota as it is now; None: there is no bound."""


class QuotaGuard(SilentObserver):
    """Refuses the requests of a key that has used up its quota. It does so when they are dispatched, as that is the one
    place that all of them come by, of every API, each prompt of a list for itself, and nothing else: models can be
    listed and tokens counted as before.

    What was let in is finished, so that a key can be overdrawn by what it has under way at a time.
    """

    def __init__(self, quota_of: QuotaOf, used: TokensUsed, now: Callable[[], datetime] = utc_now) -> None:
        self._quota_of = quota_of
        self._used = used
        self._now = now
        self._recent: Counter[str] = Counter()
        """Tokens of this process by key id that are not in `used`: under way, or not written when that was read."""
        self._prompts: dict[str, int] = {}
        """Of open requests: tokens of the prompt that are counted in `recent`."""

    def on_dispatched(self, observed: ObservedRequest) -> None:
        """Raises QuotaLimitError."""
        tenant = observed.tenant
        if tenant is None or not is_booked(observed.request):
            return
        quota, now = self._quota_of(tenant), self._now()
        if quota is not None and self.used(tenant, quota.per, now) >= quota.tokens:
            raise QuotaLimitError(_refusal(quota, now))

    def on_accepted(self, observed: ObservedRequest) -> None:
        """See RequestObserver."""
        if observed.tenant is not None:
            # A request that moved is accepted twice.
            before = self._prompts.get(observed.request_id, 0)
            self._prompts[observed.request_id] = observed.num_prompt_tokens
            self._recent[key_id_of(observed.tenant)] += observed.num_prompt_tokens - before

    def on_delta(self, observed: ObservedRequest, delta: Delta) -> None:
        """See RequestObserver."""
        if observed.tenant is not None:
            self._recent[key_id_of(observed.tenant)] += delta.num_tokens

    def on_ended(self, observed: ObservedRequest) -> None:
        """See RequestObserver. Its entry is counted by `on_entry`."""
        if observed.tenant is not None:
            counted = self._prompts.pop(observed.request_id, 0) + observed.num_generated_tokens
            self._recent[key_id_of(observed.tenant)] -= counted

    def on_entry(self, entry: Entry) -> None:
        """It is going to be written."""
        self._recent[entry.key_id] += entry.tokens

    def on_read(self, used: TokensUsed, written: Mapping[str, int]) -> None:
        """What the books say now; tokens by key id of this process that they say since the last time."""
        self._used = used
        self._recent.subtract(written)

    def used(self, tenant: Tenant, per: Period, now: datetime) -> int:
        """Tokens in the period that `now` is in."""
        key_id = key_id_of(tenant)
        return self._used.of(key_id, per, now) + self._recent[key_id]


def tokens_by_key(entries: Iterable[Entry]) -> Counter[str]:
    """Their sums by key id."""
    sums: Counter[str] = Counter()
    for entry in entries:
        sums[entry.key_id] += entry.tokens
    return sums


def _refusal(quota: Quota, now: datetime) -> str:
    renews = renewal(quota.per, now)
    if renews is None:
        return f"This API key has used up its {quota.tokens} tokens, which are not renewed."
    used_up = f"This API key has used up its {quota.tokens} tokens of this {quota.per}"
    return f"{used_up}; they renew at {renews:%Y-%m-%dT%H:%M:%SZ}."
