"""What the log lines of one task have in common."""

from __future__ import annotations

from collections.abc import Mapping
from contextvars import ContextVar
from types import MappingProxyType

LOG_FIELDS: ContextVar[Mapping[str, str]] = ContextVar("vfastml.log_fields", default=MappingProxyType({}))
"""Fields of each line that this task, and those that it starts, log as JSON: `request_id`, `trace_id`."""
