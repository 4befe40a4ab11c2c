"""What can be set on a gateway, with the defaults that the command line shows."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Any

from vfastml.engine.discovery import static_endpoints
from vfastml.entrypoints.limits import MAX_BODY_BYTES
from vfastml.utils.logging import LEVELS


@dataclass(frozen=True, slots=True)
class GatewayConfig:
    """Checked when made: raises ValueError with a sentence for the operator."""

    model_servers: tuple[str, ...] = ("tcp://127.0.0.1:6500",)
    """Endpoints of the model servers."""
    api_keys: tuple[str, ...] = ()
    """Any of them opens every route; none: no key is asked for."""
    insecure: bool = False
    """Listen beyond this machine without keys."""
    log_level: str = "info"
    drain_timeout_s: float = 30.0
    """How long open requests may go on after the first SIGTERM or SIGINT."""
    keep_alive_s: float = 15.0
    """Silence in a stream after which a comment is sent."""
    max_body_bytes: int = MAX_BODY_BYTES
    hold_s: float = 30.0
    """How long a request waits for a model server that is still loading."""
    max_held: int = 256
    """How many requests wait so at a time."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "model_servers", static_endpoints(_listed("model_servers", self.model_servers)))
        object.__setattr__(self, "api_keys", _listed("api_keys", self.api_keys))
        if any(not key.strip() for key in self.api_keys):
            raise ValueError("an API key is empty")
        if self.log_level.lower() not in LEVELS:
            raise ValueError(f"unknown log level {self.log_level!r}: expected one of {', '.join(LEVELS)}")
        for name in ("keep_alive_s", "max_body_bytes"):
            if getattr(self, name) <= 0:
                raise ValueError(f"{name} must be positive")
        for name in ("drain_timeout_s", "hold_s", "max_held"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} must not be negative")

    def with_options(self, options: dict[str, Any]) -> GatewayConfig:
        """A copy with these options set. Raises TypeError for an unknown one, by name."""
        known = [field.name for field in fields(self)]
        unknown = [name for name in options if name not in known]
        if unknown:
            raise TypeError(f"unknown option {unknown[0]!r}: the options are {', '.join(known)}")
        return replace(self, **options)


def _listed(name: str, values: Any) -> tuple[str, ...]:
    if isinstance(values, str):
        raise ValueError(f"{name} is a list of strings, not one string")
    return tuple(values)
