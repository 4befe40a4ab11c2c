"""Limits from measured steps: those of this start, or of an earlier one of the same model on the same machine."""

from __future__ import annotations

import time
from collections.abc import Callable

import torch

from vfastml.engine.dispatch_replies import Limits
from vfastml.text_engine.engine_config import EngineConfig
from vfastml.text_engine.limits import with_measured
from vfastml.text_engine.limits_report import report_busy, report_measured, report_not_measured
from vfastml.text_engine.profile_store import ProfileKey, ProfileStore
from vfastml.text_engine.step_profile import StepProfile
from vfastml.text_engine.step_sizes import choose_sizes
from vfastml.text_engine.step_timing import Run, StepBounds, measure_steps
from vfastml.text_engine.thread_times import ThreadTimes

_LONGEST_CPU_STEP_S = 0.25
"""Of a step that computes prompts: so long do others wait for a token, and a cancel for its effect."""
_MOST_CPU_TOKENS, _MOST_GPU_TOKENS = 512, 8192
"""In a step, unless more are asked for."""
_BUSY = 0.2
"""Threads that waited for a core for more than this share of their time were measured beside other work: the profile
would bind later starts to a speed that is not the machine's."""


def measured_limits(
    limits: Limits,
    config: EngineConfig,
    run: Run,
    *,
    device: torch.device,
    key: ProfileKey,
    store: ProfileStore,
    report: Callable[[str], None],
) -> Limits:
    """The limits with the best sizes in the place of those that were not asked for, by the profile that `store` has
    for `key`, or by steps that `run` is timed with; the log says what was chosen and why. `report` is told when steps
    are measured. On a machine that is busy with other work the limits stay, unless there is a target to keep to."""
    longest_step_s = _LONGEST_CPU_STEP_S if device.type == "cpu" else None
    bounds = StepBounds.within(limits, _most_tokens(config, device), longest_step_s)
    is_wanted = _is_wanted(config)
    kept = store.load(key, bounds) if is_wanted and config.measure_limits != "again" else None
    profile = kept
    if is_wanted and kept is None:
        report("measuring steps")
        profile = _measure(run, bounds, limits.block_size, config, lambda new: store.save(key, bounds, new))
    if profile is None:
        report_not_measured(config, limits, device)
        return limits
    sizes = choose_sizes(profile, config, longest_step_s)
    report_measured(config, limits, device, sizes, profile, is_new=kept is None)
    return with_measured(limits, sizes, profile)


def _is_wanted(config: EngineConfig) -> bool:
    all_given = config.max_num_seqs is not None and config.max_num_batched_tokens is not None
    return config.measure_limits == "again" or (config.measure_limits == "auto" and not all_given)


def _most_tokens(config: EngineConfig, device: torch.device) -> int:
    return config.max_num_batched_tokens or (_MOST_CPU_TOKENS if device.type == "cpu" else _MOST_GPU_TOKENS)


def _measure(
    run: Run, bounds: StepBounds, block_size: int, config: EngineConfig, keep: Callable[[StepProfile], None]
) -> StepProfile | None:
    """None if the machine was too busy for the profile to be of use."""
    before = ThreadTimes.now()
    profile = measure_steps(run, bounds, block_size, time.perf_counter)
    waited = ThreadTimes.now().waited_share_since(before)
    if waited <= _BUSY:
        keep(profile)
        return profile
    has_target = config.target_tpot_ms is not None or config.target_ttft_ms is not None
    report_busy(waited, is_used=has_target, was_forced=config.measure_limits == "again")
    return profile if has_target else None
