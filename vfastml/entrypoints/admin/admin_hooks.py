"""What the admin listener asks of those who know the keys."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any


def _no_admin(_: bytes) -> bool | None:
    return None


async def _no_keys() -> Sequence[dict[str, Any]]:
    return ()


@dataclass(slots=True)
class AdminHooks:
    """Without anybody who knows keys: there are none."""

    is_admin: Callable[[bytes], bool | None] = _no_admin
    """Whether that is the key of an operator, found out in constant time; None: no key is."""
    keys: Callable[[], Awaitable[Sequence[dict[str, Any]]]] = _no_keys
    """Name, limits and use of each key, as JSON can have them."""

    @property
    def has_admin(self) -> bool:
        """Whether some key is an operator's."""
        return self.is_admin(b"") is not None
