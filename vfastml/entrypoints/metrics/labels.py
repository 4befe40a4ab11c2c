"""The labels that say which model and which model server a series is about."""

from __future__ import annotations

MODEL_AND_ENGINE = ("model_name", "engine")


def engine_name(endpoint: str | None) -> str:
    """How metrics call a model server: its endpoint, `HOST:PORT` for TCP; empty for none."""
    return (endpoint or "").removeprefix("tcp://")
