"""The one error of this package."""

from __future__ import annotations


class ModelStoreError(Exception):
    """A model cannot be had. The message, for the operator, is one sentence or two that say what to do next."""
