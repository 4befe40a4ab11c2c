"""Which backend computes a model's attention: the fastest that can be had here, or the one that is asked for."""

from __future__ import annotations

import logging
from collections.abc import Callable
from importlib import import_module

from vfastml.errors import InvalidRequestError, UnsupportedError
from vfastml.text_engine.attention.flash import flash_attention
from vfastml.text_engine.attention.kind import SDPA, AttentionKind, AttentionNeeds, NoAttention
from vfastml.text_engine.attention.probe import probe
from vfastml.text_engine.attention.varlen import varlen_attention
from vfastml.text_engine.engine_config import ATTENTION_BACKENDS, BLOCK_SIZE
from vfastml.text_engine.triton_kernels.availability import is_interpreted, missing

logger = logging.getLogger(__name__)

_TRITON = "vfastml.text_engine.attention.triton_paged"
"""Not to be imported without the package triton."""


def choose_attention(asked: str, needs: AttentionNeeds) -> AttentionKind:
    """The backend for a model: for `auto` on a GPU the first of triton, flash and varlen that runs there, else sdpa.

    Raises InvalidRequestError for an unknown name, UnsupportedError with the reason for one that cannot be had.
    """
    check_attention_name(asked)
    if asked == SDPA.name or (asked == "auto" and needs.device.type != "cuda"):
        return SDPA
    if asked == "auto":
        return _fastest(needs)
    try:
        return _tried(asked, needs)
    except NoAttention as reason:
        raise UnsupportedError(
            f"--attention-backend {asked} cannot be had: {reason}. Leave it out, or take --attention-backend sdpa."
        ) from reason


def check_attention_name(asked: str) -> None:
    """Raises InvalidRequestError for an unknown name."""
    if asked not in ATTENTION_BACKENDS:
        known = ", ".join(ATTENTION_BACKENDS)
        raise InvalidRequestError(f"--attention-backend {asked!r} is not known: use {known}.")


def _fastest(needs: AttentionNeeds) -> AttentionKind:
    lacking = []
    for name in _KINDS:
        try:
            kind = _tried(name, needs)
        except NoAttention as reason:
            lacking.append(f"no {name}: {reason}")
            continue
        logger.info("attention runs on %s", "; ".join([name, *lacking]))
        return kind
    logger.warning("attention runs on sdpa, which gathers keys and values anew in each layer; %s", "; ".join(lacking))
    return SDPA


def _tried(name: str, needs: AttentionNeeds) -> AttentionKind:
    kind = _KINDS[name](needs)
    if name != "triton" or not is_interpreted():  # the interpreter is for tests, and takes seconds for a step
        probe(kind, needs)
    return kind


def _triton(needs: AttentionNeeds) -> AttentionKind:
    reason = missing(needs.device)
    if reason is not None:
        raise NoAttention(reason)
    return AttentionKind("triton", BLOCK_SIZE, import_module(_TRITON).TritonAttention)


_KINDS: dict[str, Callable[[AttentionNeeds], AttentionKind]] = {
    "triton": _triton,
    "flash": flash_attention,
    "varlen": varlen_attention,
}
"""The fastest first."""
