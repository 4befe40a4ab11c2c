"""A counter whose labels are looked up by one dictionary."""

from __future__ import annotations

from collections.abc import Sequence

from prometheus_client import CollectorRegistry, Counter


class LabelledCounter:
    """prometheus_client's own look-up of labels takes longer than counting."""

    def __init__(self, name: str, says: str, labels: Sequence[str], registry: CollectorRegistry | None) -> None:
        self._family = Counter(f"vfastml:{name}", says, labels, registry=registry)
        self._children: dict[tuple[str, ...], Counter] = {}

    def inc(self, *labels: str, by: float = 1) -> None:
        """More of what has these labels."""
        child = self._children.get(labels)
        if child is None:
            child = self._children[labels] = self._family.labels(*labels)
        child.inc(by)
