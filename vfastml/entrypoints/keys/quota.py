"""How much a key may use. Nothing here needs the ledger's library."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Literal, Protocol, get_args

Period = Literal["day", "month", "ever"]
PERIODS: tuple[Period, ...] = get_args(Period)


@dataclass(frozen=True, slots=True)
class Quota:
    """Tokens of prompts and answers together. Checked when made: raises ValueError."""

    tokens: int
    per: Period = "day"
    """Of UTC; `ever` does not renew."""

    def __post_init__(self) -> None:
        if self.tokens < 0:
            raise ValueError("a quota must not be negative")
        if self.per not in PERIODS:
            raise ValueError(f"a quota is per {', '.join(PERIODS)}")


class HasQuota(Protocol):
    """What a key says of its quota."""

    @property
    def quota_tokens(self) -> int | None:
        """None: there is no bound."""

    @property
    def quota_per(self) -> Period | None:
        """See Quota; there is one where there are tokens."""


def quota_of_key(key: HasQuota | None) -> Quota | None:
    """A key's quota, if it has one."""
    if key is None or key.quota_tokens is None or key.quota_per is None:
        return None
    return Quota(key.quota_tokens, key.quota_per)


def check_ledger_for(keys: Iterable[HasQuota], ledger: str | None) -> None:
    """Quotas are held against a ledger. Raises ValueError with a sentence for the operator when there is none."""
    if ledger is None and any(key.quota_tokens is not None for key in keys):
        raise ValueError("keys have quotas, which need the usage ledger: give it a file with --ledger")


def renewal(per: Period, now: datetime) -> datetime | None:
    """When the period ends that `now`, a time in UTC, is in; None: never."""
    midnight = datetime(now.year, now.month, now.day, tzinfo=UTC)
    if per == "day":
        return midnight + timedelta(days=1)
    if per == "month":
        return (midnight.replace(day=1) + timedelta(days=32)).replace(day=1)
    return None
