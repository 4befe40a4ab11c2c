"""Whether a service that has been through chaos is as it was before."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from tests.chaos.conversation import End
from tests.chaos.crowd import Crowd
from tests.chaos.fleet import Fleet
from tests.chaos.ledger import Ledger
from tests.chaos.processes import Footprint

HEALED_S = 60.0
"""For model servers that were being started when the chaos ended."""
_IDLE_S = 15.0
_GROWTH_MIB = 64.0
_MORE_DESCRIPTORS = 24
_MORE_THREADS = 4
_SETTLE_S = 1.0


@dataclass(frozen=True)
class Line:
    """One row of the table."""

    what: str
    found: str
    is_good: bool


async def verdict(fleet: Fleet, crowd: Crowd, ledger: Ledger, before: dict[str, Footprint]) -> list[Line]:
    """Asks the service, and reads its logs. `before` is what each process held at first."""
    lines = [_ends(ledger)]
    lines += [await _recovered(fleet), await _answers(crowd, ledger), await _all_free(fleet)]
    await asyncio.sleep(_SETTLE_S)
    lines += _footprints(fleet, before)
    broken = [process.name for process in fleet.processes if not process.is_running()]
    lines.append(Line("processes that have ended by themselves", ", ".join(broken) or "none", not broken))
    tracebacks = sum(process.tracebacks() for process in fleet.processes)
    lines.append(Line("tracebacks in the logs", str(tracebacks), not tracebacks))
    lines.append(Line("violations", str(ledger.num_violations), not ledger.num_violations))
    return lines


def _ends(ledger: Ledger) -> Line:
    ended = ledger.ends.total()
    return Line("requests, and ends of requests", f"{ledger.asked}, {ended}", ended == ledger.asked)


async def _recovered(fleet: Fleet) -> Line:
    what = "all servers live again"
    try:
        return Line(what, f"after {await fleet.wait_ready(HEALED_S):.1f} s", True)
    except TimeoutError:
        return Line(what, f"not within {HEALED_S:g} s: {_states(await fleet.load())}", False)


async def _answers(crowd: Crowd, ledger: Ledger) -> Line:
    before, violations = ledger.ends[End.ANSWERED], ledger.num_violations
    await crowd.ask_each_once()
    count = ledger.ends[End.ANSWERED] - before
    return Line("right answers afterwards, each question once", str(count), ledger.num_violations == violations)


async def _all_free(fleet: Fleet) -> Line:
    what = "open requests and used blocks at the end"
    try:
        await fleet.wait_idle(_IDLE_S)
        return Line(what, "none", True)
    except TimeoutError:
        return Line(what, str(await fleet.load()), False)


def _footprints(fleet: Fleet, before: dict[str, Footprint]) -> list[Line]:
    lines = []
    for process in fleet.processes:
        if (now := process.footprint()) is not None:
            lines.append(_grown(process.name, before[process.name], now))
    return lines


def _grown(name: str, before: Footprint, now: Footprint) -> Line:
    """A process that was started anew is held against the one before it, which has done as much."""
    grown_mib = now.resident_mib - before.resident_mib
    descriptors, threads = now.descriptors - before.descriptors, now.threads - before.threads
    is_flat = grown_mib < _GROWTH_MIB and descriptors <= _MORE_DESCRIPTORS and threads <= _MORE_THREADS
    found = f"{grown_mib:+.0f} MiB, {descriptors:+d} descriptors, {threads:+d} threads"
    return Line(f"{name}: more than at first", found, is_flat)


def _states(load: dict[str, object] | None) -> str:
    servers = (load or {}).get("servers")
    return str([server["state"] for server in servers]) if isinstance(servers, list) else "the gateway is silent"
