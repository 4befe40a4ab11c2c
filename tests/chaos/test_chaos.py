"""A short run of chaos, always the same one, and the seeds that have once found something."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.chaos.chaos_run import NUM_QUESTIONS, ChaosRun
from tests.chaos.conversation import End

SEEDS = (1,)
SECONDS = 15.0


@pytest.mark.parametrize("seed", SEEDS)
async def test_nothing_is_lost_mixed_up_or_leaked(seed: int, tiny_models: dict[str, Path], tmp_path: Path) -> None:
    run = ChaosRun(tiny_models["llama"], tmp_path, seconds=SECONDS, seed=seed, progress=lambda passed, ledger: None)
    outcome = await run.run()
    bad = [f"{line.what}: {line.found}" for line in outcome.lines if not line.is_good]
    assert not bad, "\n".join([*bad, *outcome.ledger.violations])
    assert outcome.ledger.ends[End.ANSWERED] > 2 * NUM_QUESTIONS, "it was not only asked in the end"
