"""Whether there are traces. Every gateway imports this module, but OpenTelemetry only those that have some."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from vfastml.entrypoints.gateway_config import GatewayConfig

if TYPE_CHECKING:
    from vfastml.entrypoints.tracing.request_tracing import RequestTracing

_PACKAGE = "vfastml.entrypoints.tracing"


def tracing_for(config: GatewayConfig) -> RequestTracing | None:
    """None if they have nowhere to go. Raises RuntimeError if the packages are missing."""
    if not config.is_traced:
        return None
    try:
        tracing: RequestTracing = import_module(f"{_PACKAGE}.request_tracing").RequestTracing(config)
    except ImportError as error:
        raise RuntimeError("traces need packages that are not here: pip install 'vfastml[trace]'") from error
    return tracing
