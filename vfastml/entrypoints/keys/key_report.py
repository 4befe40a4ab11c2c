"""What operators are shown of a key."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from vfastml.entrypoints.keys.api_key import ApiKey
from vfastml.entrypoints.keys.balances import Level, Meter


def key_report(key: ApiKey, levels: Mapping[Meter, Level], used: Mapping[str, int] | None) -> dict[str, Any]:
    """Its name, its limits, what is left of its rates, and what it has used by the books, if there are any. As JSON can
    have it; never the digest."""
    limits = {name: value for name, value in asdict(key).items() if name != "sha256"}
    left = {meter.name.lower(): level.balance for meter, level in levels.items()}
    return {**limits, "left_this_minute": left, "used": used}
