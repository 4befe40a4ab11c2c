"""Whether there are traces. Every gateway imports this module, but OpenTelemetry only those that have some."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from vfastml.entrypoints.gateway_config import GatewayConfig

if TYPE_CHECKING:
    from vfastml.entrypoints.tracing.request_tracing import RequestTracing

_PACKAGE = "vfastml.entrypoints.tracing"


def tracing_for(config: GatewayConfig) -> RequestTracing | None:
    """None if they have nowhere to go. Raises ValueError, with a sentence for the operator, if they cannot be had."""
    if not config.is_traced:
        return None
    try:
        module = import_module(f"{_PACKAGE}.request_tracing")
    except ImportError as error:
        raise ValueError("traces need packages that are not here: pip install 'vfastml[trace]'") from error
    tracing: RequestTracing = module.RequestTracing(config)
    return tracing
