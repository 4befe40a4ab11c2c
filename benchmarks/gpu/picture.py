"""A result as a picture."""

from __future__ import annotations

from pathlib import Path

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from benchmarks.engine_titles import TOKENS_PER_S
from benchmarks.gpu.records import GpuResult
from benchmarks.gpu.titles import DEFAULT, HTTP, batch, closed_loop
from benchmarks.hf_labels import CONTINUOUS, STATIC

matplotlib.use("Agg")

_INCHES = (16.0, 5.2)
_SIZES = (1, 8, 32, 128, 256)


def draw(result: GpuResult, path: Path) -> None:
    """A PNG: tokens/s against the batch, of each model and of transformers; the same loop offline and over HTTP; and
    what each setting makes of batch 1."""
    picture = Figure(figsize=_INCHES, layout="constrained")
    by_batch, over_http, switches = picture.subplots(1, 3)
    _batches(by_batch, result)
    _serving(over_http, result)
    _switches(switches, result)
    if result.dry:
        picture.suptitle("a dry run: no figure means anything")
    path.parent.mkdir(parents=True, exist_ok=True)
    picture.savefig(path, dpi=110)


def _batches(axes: Axes, result: GpuResult) -> None:
    models = dict.fromkeys(each.model for each in result.measurements if each.model)
    for model in models:
        for case in (DEFAULT, STATIC, CONTINUOUS):
            rates = {size: _rate(result, model, case, batch(size)) for size in _SIZES}
            known = {size: rate for size, rate in rates.items() if rate is not None}
            if known:
                axes.plot(list(known), list(known.values()), marker="o", label=f"{model}, {case}")
    axes.set_xscale("log", base=2)
    axes.set_yscale("log")
    _dress(axes, "tokens/s against the batch")


def _serving(axes: Axes, result: GpuResult) -> None:
    large, levels = result.settings["large"], sorted(result.settings["levels"])
    for offset, case in ((-0.2, DEFAULT), (0.2, HTTP)):
        rates = [_rate(result, large, case, closed_loop(level)) or 0.0 for level in levels]
        axes.bar([place + offset for place in range(len(levels))], rates, width=0.4, label=case)
    axes.set_xticks(range(len(levels)), [f"c={level}" for level in levels])
    _dress(axes, f"{large}: tokens/s, offline and over HTTP")


def _switches(axes: Axes, result: GpuResult) -> None:
    large = result.settings["large"]
    cases = dict.fromkeys(
        each.case for each in result.of(model=large) if each.case not in (HTTP, CONTINUOUS, STATIC, "")
    )
    known = {case: rate for case in cases if (rate := _rate(result, large, case, batch(1))) is not None}
    axes.barh(list(known), list(known.values()))
    axes.invert_yaxis()
    _dress(axes, f"{large}: tokens/s at batch 1")


def _rate(result: GpuResult, model: str, case: str, workload: str) -> float | None:
    return result.median(TOKENS_PER_S, model=model, case=case, workload=workload)


def _dress(axes: Axes, title: str) -> None:
    axes.set_title(title, fontsize="medium")
    axes.grid(alpha=0.3)
    if axes.get_legend_handles_labels()[0]:
        axes.legend(fontsize="small")
