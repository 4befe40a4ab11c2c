"""What can be wrong with a ledger."""

from __future__ import annotations


class LedgerError(Exception):
    """The ledger cannot be used, or not now. The message is a sentence for the operator."""
