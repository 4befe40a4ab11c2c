"""The environment variables that stand for flags, and those of Kubernetes that look like them."""

from __future__ import annotations

import difflib
import re
from collections.abc import Collection, Mapping

PREFIX = "VFASTML_"

OTHERS = frozenset({"VFASTML_CACHE", "VFASTML_KERNELS_DIR"})
"""Known variables that are no flag's."""

_SERVICE_LINK = re.compile(
    r"VFASTML(_[A-Z0-9_]+)?_(SERVICE_HOST|SERVICE_PORT(_[A-Z0-9_]+)?|PORT(_\d+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)?)"
)


def variable_of(flag: str) -> str:
    """The variable of a flag, given as `max_tokens`.

    One that ends in port gets `_NUMBER`: Kubernetes sets VFASTML_PORT, to an address, in every container beside a
    Service called vfastml, and VFASTML_RPC_PORT beside a vfastml-rpc.
    """
    name = PREFIX + flag.upper()
    return f"{name}_NUMBER" if name.endswith("PORT") else name


def is_service_link(name: str) -> bool:
    """Whether Kubernetes may set it for a Service called `vfastml` or `vfastml-...`."""
    return _SERVICE_LINK.fullmatch(name) is not None


def unknown_variables(environment: Mapping[str, str], known: Collection[str]) -> list[str]:
    """The names that begin like ours and are not, but for Kubernetes' own."""
    ours = [name for name in sorted(environment) if name.startswith(PREFIX) and name not in known]
    return [name for name in ours if not is_service_link(name) or _is_meant(name, environment[name], known)]


def nearest(name: str, known: Collection[str]) -> str:
    """What to add to a complaint about a name: the known one that was probably meant, or nothing."""
    if f"{name}_NUMBER" in known:
        return f"; did you mean {name}_NUMBER?"
    found = difflib.get_close_matches(name, sorted(known), n=1)
    return f"; did you mean {found[0]}?" if found else ""


def _is_meant(name: str, value: str, known: Collection[str]) -> bool:
    # Kubernetes sets an address there. A bare number comes from someone who wants a port.
    return f"{name}_NUMBER" in known and value.isdigit()
