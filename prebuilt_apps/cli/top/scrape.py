"""The text of `/metrics`, as series and their values."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.samples import Sample

_PREFIX = "vfastml:"
START = "process_start_time_seconds"
"""The one series of others that is kept: when the gateway's process started, in Unix seconds."""


class Series(NamedTuple):
    """A name, and labels in the order of their names."""

    name: str
    labels: tuple[tuple[str, str], ...] = ()

    @classmethod
    def of(cls, name: str, **labels: str) -> Series:
        """That one."""
        return cls(name, tuple(sorted(labels.items())))

    def label(self, name: str) -> str | None:
        """What the label says, if the series has it."""
        return dict(self.labels).get(name)


Values = dict[Series, float]


class NotMetricsError(ValueError):
    """The text is not in Prometheus' format, or has no series of ours."""


def parse_metrics(text: str) -> Values:
    """Our own series of a scrape, without the prefix, and START. Raises NotMetricsError."""
    try:
        values = {_series(sample): sample.value for sample in _samples(text)}
    except (ValueError, KeyError, IndexError, AttributeError) as error:
        # The parser trusts what it reads.
        raise NotMetricsError from error
    if not values.keys() - {Series(START)}:
        raise NotMetricsError
    return values


def _samples(text: str) -> Iterator[Sample]:
    for family in text_string_to_metric_families(text):
        if family.name.startswith(_PREFIX) or family.name == START:
            yield from family.samples


def _series(sample: Sample) -> Series:
    return Series.of(sample.name.removeprefix(_PREFIX), **sample.labels)
