"""The measurements as tables."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from benchmarks.engine_titles import DECODE_STEP, TOKENS_PER_S
from benchmarks.gpu.measurements import Measurement
from benchmarks.gpu.records import GpuResult
from benchmarks.gpu.targets import share_of_copy, targets
from benchmarks.gpu.titles import DEFAULT, HTTP, KERNEL_STEPS, KERNELS, LOADING, batch
from benchmarks.hf_labels import CONTINUOUS, STATIC
from benchmarks.tables import UNKNOWN, TextTable

_WHOLE_CASES = (DEFAULT, HTTP, STATIC, CONTINUOUS)
"""The others are compared with the default."""


def target_table(result: GpuResult) -> TextTable:
    """What was wanted, and whether it was reached."""
    rows = [[target.title, target.wanted, target.reached, target.verdict(dry=result.dry)] for target in targets(result)]
    return TextTable("Targets", ["", "wanted", "reached", "met"], rows)


def outcome_table(result: GpuResult) -> TextTable:
    """What became of each part."""
    rows = [
        [each.name, each.status, f"{each.seconds:.0f}", f"{each.budget_s:.0f}", each.reason.replace("|", "/")]
        for each in result.outcomes
    ]
    return TextTable("Parts", ["", "outcome", "s", "of s", "why"], rows)


def model_tables(result: GpuResult) -> list[TextTable]:
    """For each model: its workloads with the default settings, over HTTP and in transformers."""
    found = []
    for model in _distinct(each.model for each in result.measurements):
        rows = [_workload_row(result, each) for each in _first_of_each(result, model)]
        if rows:
            header = ["", "in", "out", "requests", "tokens/s", "decode step, ms", "of copy bandwidth, %", "TTFT, ms"]
            found.append(TextTable(f"{model}: medians", header, rows))
    return found


def switch_table(result: GpuResult) -> TextTable:
    """One setting changed at a time: tokens/s, and over those of the default."""
    sizes = (1, 128)
    rows = []
    for model in _distinct(each.model for each in result.measurements):
        for case in _distinct(each.case for each in result.of(model=model) if each.case not in _WHOLE_CASES):
            rates = [cell for size in sizes for cell in _switch_cells(result, model, case, batch(size))]
            if any(cell != UNKNOWN for cell in rates):
                rows.append([f"{model}, {case}", *rates])
    header = ["", *(title for size in sizes for title in (f"batch {size}, tokens/s", "of default"))]
    return TextTable("One setting changed at a time", header, rows)


def other_tables(result: GpuResult) -> list[TextTable]:
    """Everything that has no table of its own: memory, tests, equality, loading, kernels."""
    others = [each for each in result.measurements if TOKENS_PER_S not in each.figures and each.part != KERNELS]
    found = []
    for part in _distinct(each.part for each in others if each.workload != LOADING):
        found.append(_plain_table(part, [each for each in others if each.part == part]))
    return [*found, *_kernel_tables(result), _loading_table(result)]


def _workload_row(result: GpuResult, one: Measurement) -> list[str]:
    wanted = {"model": one.model, "case": one.case, "workload": one.workload}
    name = one.workload if one.case == DEFAULT else f"{one.case}: {one.workload}"
    lengths = [str(one.settings.get(key, UNKNOWN)) for key in ("in", "out", "sequences")]
    first_token = result.median("TTFT p50, ms", **wanted) or result.median("TTFT, mean, ms", **wanted)
    figures = (
        result.median(TOKENS_PER_S, **wanted),
        result.median(DECODE_STEP, **wanted),
        share_of_copy(result, **wanted),
        first_token,
    )
    return [name, *lengths, *map(number, figures)]


def _switch_cells(result: GpuResult, model: str, case: str, workload: str) -> list[str]:
    own, default = (result.median(TOKENS_PER_S, model=model, case=name, workload=workload) for name in (case, DEFAULT))
    return [number(own), UNKNOWN if own is None or not default else f"{own / default:.2f}x"]


def _plain_table(title: str, measurements: Sequence[Measurement]) -> TextTable:
    titles = _distinct(title for each in measurements for title in each.figures)
    rows = [
        [
            _name(each),
            *(number(each.figures.get(t)) for t in titles),
        ]
        for each in measurements
    ]
    return TextTable(title, ["", *titles], rows)


def _name(measurement: Measurement) -> str:
    if measurement.workload == KERNELS:
        return measurement.case
    return ", ".join(filter(None, (measurement.model, measurement.case, measurement.workload)))


def _cell(measurement: Measurement, title: str) -> str:
    return number(measurement.figures.get(title))


def _kernel_tables(result: GpuResult) -> list[TextTable]:
    steps = result.of(workload=KERNEL_STEPS)
    titles = _distinct(title for each in steps for title in each.figures)
    rows = [[title, *(_cell(each, title) for each in steps)] for title in titles]
    kernels = result.of(workload=KERNELS)
    families = _distinct(str(each.settings.get("family", "")) for each in kernels)
    return [
        TextTable("Kernels of a decode step", ["", *(each.case for each in steps)], rows),
        *(
            _plain_table(f"Kernels: {family}", [each for each in kernels if each.settings.get("family") == family])
            for family in families
        ),
    ]


def _loading_table(result: GpuResult) -> TextTable:
    return _plain_table("Starts", result.of(workload=LOADING))


def _first_of_each(result: GpuResult, model: str) -> list[Measurement]:
    """One for each workload and case, in the order in which they were measured."""
    found: dict[tuple[str, str], Measurement] = {}
    for each in result.of(model=model):
        if TOKENS_PER_S in each.figures and each.case in _WHOLE_CASES:
            found.setdefault((each.case, each.workload), each)
    return list(found.values())


def _distinct(names: Iterable[str]) -> list[str]:
    return [name for name in dict.fromkeys(names) if name]


def number(value: float | None) -> str:
    """With as many digits as say something."""
    if value is None:
        return UNKNOWN
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"
