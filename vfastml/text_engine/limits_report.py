"""Says what limits an engine has settled on, and why: lines in the log, and a table on a terminal."""

from __future__ import annotations

import logging
import sys

import torch
from rich.console import Console
from rich.table import Table

from vfastml.engine.dispatch_replies import Limits
from vfastml.text_engine.engine_config import EngineConfig
from vfastml.text_engine.limits import explain_kv_cache
from vfastml.text_engine.step_profile import CONTEXT, StepProfile, StepTime
from vfastml.text_engine.step_sizes import StepSizes

logger = logging.getLogger(__name__)


def report_not_measured(config: EngineConfig, limits: Limits, device: torch.device) -> None:
    """The limits of a start that needs no profile, or is to have none."""
    logger.info("KV cache: %s", explain_kv_cache(config, limits, device))
    logger.info(
        "max_num_seqs %d, max_num_batched_tokens %d: as asked for, or by default; no measured steps were used",
        limits.max_num_seqs,
        limits.max_num_batched_tokens,
    )
    for flag, target in (("--target-tpot-ms", config.target_tpot_ms), ("--target-ttft-ms", config.target_ttft_ms)):
        if target is not None:
            logger.warning("%s changes nothing beside --max-num-seqs and --max-num-batched-tokens", flag)


def report_busy(waited_share: float, *, is_used: bool, was_forced: bool) -> None:
    """Steps were measured beside other work. `is_used`: for this start's targets; `was_forced`: whether or not there
    was a profile already."""
    logger.warning(
        "the machine is busy: the model waited for a core for %.0f %% of the time that its steps were measured; "
        "this start %s, and %s",
        100 * waited_share,
        "keeps to its targets by them all the same" if is_used else "does not use them",
        "an earlier profile stays as it was" if was_forced else "the next one measures again",
    )


def report_measured(
    config: EngineConfig, limits: Limits, device: torch.device, sizes: StepSizes, profile: StepProfile, *, is_new: bool
) -> None:
    """What was chosen, and from which steps if they are new. `limits` are those before that choice."""
    kv_cache = explain_kv_cache(config, limits, device)
    if not is_new:
        logger.info("the steps of this model were measured at an earlier start; --measure-limits again measures anew")
    elif sys.stderr.isatty() and logger.isEnabledFor(logging.INFO):
        Console(stderr=True).print(_table(sizes, profile, kv_cache))
    else:
        logger.info("decode at %d tokens of context, ms a step by sequences: %s", CONTEXT, _line(profile.decode))
        logger.info("prefill, ms a step by tokens: %s", _line(profile.prefill))
    logger.info("KV cache: %s", kv_cache)
    logger.info("max_num_seqs %d: %s", *sizes.max_num_seqs)
    logger.info("max_num_batched_tokens %d: %s", *sizes.max_num_batched_tokens)
    for missed in sizes.missed:
        logger.warning("%s", missed)


def _line(steps: tuple[StepTime, ...]) -> str:
    return ", ".join(f"{step.tokens}: {1e3 * step.seconds:.1f}" for step in steps)


def _table(sizes: StepSizes, profile: StepProfile, kv_cache: str) -> Table:
    table = Table(
        title=f"Measured steps (sequences at {CONTEXT} tokens of context)",
        title_justify="left",
        box=None,
        pad_edge=False,
    )
    table.caption, table.caption_justify = f"KV cache: {kv_cache}", "left"
    table.add_column("a step of", justify="right")
    table.add_column("ms", justify="right")
    table.add_column("tokens/s", justify="right")
    table.add_column("chosen")
    seqs, budget = sizes.max_num_seqs.number, sizes.max_num_batched_tokens.number
    for step in profile.decode:
        _add_row(table, step, "sequences", f"max_num_seqs {seqs}" if step is _nearest(profile.decode, seqs) else "")
    for step in profile.prefill:
        is_chosen = step is _nearest(profile.prefill, budget)
        _add_row(table, step, "prompt tokens", f"max_num_batched_tokens {budget}" if is_chosen else "")
    return table


def _add_row(table: Table, step: StepTime, of_what: str, chosen: str) -> None:
    table.add_row(f"{step.tokens} {of_what}", f"{1e3 * step.seconds:.1f}", f"{step.tokens_per_s:,.0f}", chosen)


def _nearest(steps: tuple[StepTime, ...], tokens: int) -> StepTime:
    return min(steps, key=lambda step: abs(step.tokens - tokens))
