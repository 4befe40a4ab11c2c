"""How many files and sockets this process may have open."""

from __future__ import annotations

import contextlib
import math
import resource

_SHARE_OF_CONNECTIONS = 0.9
"""The rest is for model servers, logs, and whatever else has to be opened while many clients are connected."""


def raise_descriptor_limit() -> None:
    """As far as the system lets us without asking anybody."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(ValueError, OSError):  # some systems name a bound that they do not grant
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def connections_that_fit() -> float:
    """Clients that may be connected at a time, so that descriptors are left for all else."""
    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return math.inf if limit == resource.RLIM_INFINITY else int(limit * _SHARE_OF_CONNECTIONS)
