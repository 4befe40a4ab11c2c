"""A result as a document: what was to be reached first, then all that was measured, and all that was not."""

from __future__ import annotations

from benchmarks.gpu.records import DONE, GpuResult
from benchmarks.gpu.result_tables import model_tables, other_tables, outcome_table, switch_table, target_table
from benchmarks.tables import TextTable

_DRY = (
    "**A dry run: tiny shapes, on a CPU, in Triton's interpreter. It shows that everything runs. No figure below means "
    "anything.**"
)
_WAYS = (
    "Random weights in the shapes named, greedy, end tokens ignored, new random prompts for each run; offline unless "
    "it says HTTP. Shares are of the bandwidth of a copy within the card, read and written bytes counted, measured in "
    "the same run: bytes that a decode step has to read (weights, and keys and values at half the answer) over its "
    "median time. tokens/s include the prompts' time. The speeds in tokens/s were set for an H100: another card has "
    "other limits."
)


def markdown(result: GpuResult, picture: str | None = None) -> str:
    """`picture` is the name of a file beside it."""
    blocks = [f"# {'A dry run' if result.dry else 'On one GPU'}, {result.date}", _machine(result)]
    blocks += [_DRY] * result.dry
    blocks += [_list(result.missing)] * bool(result.missing)
    blocks += [_table(target_table(result)), _WAYS]
    blocks += [f"![tokens/s of each workload and setting]({picture})"] * (picture is not None)
    tables = [*model_tables(result), switch_table(result), *other_tables(result), outcome_table(result)]
    blocks += [_table(table) for table in tables if table.rows]
    blocks += [_notes(result), _logs(result), f"`{' '.join(result.command)}`"]
    return "\n\n".join(block for block in blocks if block) + "\n"


def _machine(result: GpuResult) -> str:
    facts = ", ".join(f"{name} {value}" for name, value in result.environment.items())
    return f"{result.machine}.\n{facts}."


def _notes(result: GpuResult) -> str:
    noted = [(each, note) for each in result.measurements for note in each.notes]
    names = [", ".join(filter(None, (each.model, each.case, each.workload))) for each, _ in noted]
    return _list([f"{name}: {note}" for name, (_, note) in zip(names, noted, strict=True)])


def _logs(result: GpuResult) -> str:
    """The end of what parts printed that did not do well."""
    ends = [(each.name, each.log) for each in result.outcomes if each.status != DONE and each.log]
    return "\n\n".join(f"{name}:\n\n```\n{_last_lines(log)}\n```" for name, log in ends)


def _last_lines(log: str) -> str:
    lines = [line.rstrip() for line in log.replace("```", "'''").replace("\r", "\n").split("\n") if line.strip()]
    return "\n".join(line[:200] for line in lines[-12:])


def _list(lines: list[str]) -> str:
    return "\n".join(f"- {line}" for line in lines)


def _table(table: TextTable) -> str:
    return table.markdown()
