"""The network between gateway and model server is slow, stops, cuts, swallows, or brings bytes that nobody has sent."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.chaos.chaos_run import with_answers
from tests.chaos.crowd import Crowd
from tests.chaos.fleet import Fleet
from tests.chaos.ledger import Ledger
from tests.chaos.network_faults import Garbled, Late, Repeated, Sliced, Stalled, Truncated
from tests.chaos.proxy import ChaosProxy
from tests.chaos.questions import questions
from tests.faults.table import FaultTable

pytestmark = pytest.mark.faults

CHANCE = random.Random(16)
FAULTS: dict[str, Callable[[ChaosProxy], None]] = {
    "200 ms late": lambda wire: wire.suffer(Late(0.2)),
    "stall": lambda wire: wire.suffer(Stalled()),
    "reset": ChaosProxy.reset,
    "half-open": ChaosProxy.swallow,
    "one byte at a time": lambda wire: wire.suffer(Sliced()),
    "truncated": lambda wire: wire.suffer(Truncated(CHANCE)),
    "garbage between": lambda wire: wire.suffer(Garbled(CHANCE)),
    "pieces twice": lambda wire: wire.suffer(Repeated(CHANCE)),
}
TIMES = 2
LASTS_S = 1.5
WELL_AGAIN_S = 2.0


async def test_bad_network(tiny_models: dict[str, Path], tmp_path: Path, faults: FaultTable) -> None:
    fleet = Fleet(tiny_models["llama"], tmp_path, servers=1)
    try:
        await fleet.start()
        asked, book = await with_answers(fleet.url, questions(random.Random(16), 20))
        ledger = Ledger(book)
        pids = [process.pid for process in fleet.processes]
        async with Crowd(fleet, asked, ledger, "16", size=8) as crowd:
            healing_s = {name: await heals(fleet, crowd, cause) for name, cause in FAULTS.items()}
            await crowd.ask_each_once()
        await fleet.wait_idle(10)
        assert [process.pid for process in fleet.processes] == pids
    finally:
        await fleet.stop()
    assert not ledger.violations, "\n".join(ledger.violations)
    assert max(healing_s.values()) <= WELL_AGAIN_S, healing_s
    slowest = max(healing_s, key=lambda name: healing_s[name])
    faults.shows(
        "F16",
        f"{len(FAULTS)} faults, {TIMES} times each, {ledger.asked} requests: no crash, no mix-up, well again after "
        f"{healing_s[slowest]:.1f} s at most ({slowest})",
    )


async def heals(fleet: Fleet, crowd: Crowd, cause: Callable[[ChaosProxy], None]) -> float:
    """Seconds from the end of the fault to the first answer: the longest of several times."""
    longest, [wire] = 0.0, fleet.wires
    for _ in range(TIMES):
        is_over = asyncio.Event()
        async with asyncio.TaskGroup() as going_on:
            going_on.create_task(crowd.ask_until(is_over))
            await asyncio.sleep(0.3)
            cause(wire)
            await asyncio.sleep(LASTS_S)
            wire.heal()
            healed = time.monotonic()
            await crowd.wait_answered()
            longest = max(longest, time.monotonic() - healed)
            is_over.set()
        await fleet.wait_ready()
    return longest
