"""Which tokens end a text, as a model's generation config says."""

from __future__ import annotations

from typing import Any


def end_token_list(generation_config: Any) -> list[int]:
    """A generation config of transformers names one end token, several, or none; None: there is no config."""
    ids: int | list[int] | None = getattr(generation_config, "eos_token_id", None)
    if ids is None:
        return []
    return list(ids) if isinstance(ids, list) else [ids]
