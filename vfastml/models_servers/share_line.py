"""Inputs that wait for a one-shot model, and whose turn is next."""

from __future__ import annotations

import time
from collections import OrderedDict
from dataclasses import dataclass, field
from typing import Any

from vfastml.engine.dispatch_replies import Accepted

_MOST_GONE = 1024
"""Shares without anything that waits, of which it is kept whatever they have had."""


@dataclass(frozen=True, slots=True)
class OneShotWork:
    """One input that waits for its batch."""

    request_id: str
    inputs: Any
    share: str = ""
    share_weight: float = 1.0
    arrived_s: float = field(default_factory=time.monotonic)

    def accepted(self) -> Accepted:
        """The first reply."""
        return Accepted(self.request_id, prompt_tokens=0)


class _Share:
    def __init__(self, had: float) -> None:
        self.had = had
        """Inputs that it has got into batches, divided by its weight."""
        self.waiting: OrderedDict[str, OneShotWork] = OrderedDict()


class ShareLine:
    """Between shares the one goes first that has had the fewest inputs for its weight, within one the oldest input. A
    share that comes begins where the least of those stands that wait: that it was idle is no credit. What it has had
    more than they is not forgotten until nobody waits."""

    def __init__(self) -> None:
        self._shares: dict[str, _Share] = {}
        """Those of which something waits; who had as much as another goes first if he has waited longer."""
        self._gone: dict[str, float] = {}
        """What those had of which nothing waits now."""
        self._share_of: dict[str, str] = {}

    def __len__(self) -> int:
        return len(self._share_of)

    @property
    def arrived_s(self) -> float:
        """When the oldest came, of which there must be one."""
        return min(next(iter(share.waiting.values())).arrived_s for share in self._shares.values())

    def add(self, work: OneShotWork) -> None:
        """It waits from now on."""
        share = self._shares.get(work.share)
        if share is None:
            share = self._shares[work.share] = _Share(self._begin(work.share))
        share.waiting[work.request_id] = work
        self._share_of[work.request_id] = work.share

    def pop(self) -> OneShotWork:
        """Whose turn it is: it waits no more. There must be one."""
        share = min(self._shares.values(), key=lambda share: share.had)
        work = next(iter(share.waiting.values()))
        share.had += 1 / work.share_weight
        self.remove(work.request_id)
        return work

    def remove(self, request_id: str) -> bool:
        """It waits no more; False if it did not."""
        name = self._share_of.pop(request_id, None)
        if name is None:
            return False
        share = self._shares[name]
        del share.waiting[request_id]
        if not share.waiting:
            del self._shares[name]
            self._gone[name] = share.had
        return True

    def _begin(self, name: str) -> float:
        if not self._shares:
            self._gone.clear()
            return 0.0
        least = min(share.had for share in self._shares.values())
        if len(self._gone) > _MOST_GONE:
            self._gone = {gone: had for gone, had in self._gone.items() if had > least}
        return max(least, self._gone.pop(name, 0.0))
