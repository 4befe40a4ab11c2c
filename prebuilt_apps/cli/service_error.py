"""What goes wrong with a service, for the one at the keyboard."""

from __future__ import annotations


class ServiceError(Exception):
    """One sentence: the server's own where it has said one."""


class NobodyAnswersError(ServiceError):
    """Nothing listens at that address, or it cannot be reached."""
