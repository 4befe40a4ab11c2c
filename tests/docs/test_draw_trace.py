"""The picture of a trace is drawn from lines that a gateway wrote, which are kept beside it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from tests.docs.markdown import DOCS
from tests.docs.test_draw_architecture import png_size

SCRIPT, LINES = DOCS / "draw_trace.py", DOCS / "trace.jsonl"


def test_it_draws_a_picture_of_the_size_that_is_kept(tmp_path: Path) -> None:
    environment = {**os.environ, "MPLCONFIGDIR": str(tmp_path / "matplotlib")}
    command = [sys.executable, str(SCRIPT), str(LINES), str(tmp_path / "drawn.png")]
    subprocess.run(command, check=True, timeout=120, env=environment)
    assert png_size(tmp_path / "drawn.png") == png_size(DOCS / "trace.png")


def test_what_is_kept_is_one_preempted_streamed_beam_search() -> None:
    spans = [json.loads(line) for line in LINES.read_text().splitlines()]
    assert len({span["trace_id"] for span in spans}) == 1
    [dispatched] = [span for span in spans if "gen_ai.operation.name" in span["attributes"]]
    assert dispatched["attributes"]["gen_ai.request.stream"]
    assert dispatched["attributes"]["vfastml.beam_width"] > 1
    num_preempted = len([span for span in spans if span["name"] == "preempted"])
    assert num_preempted == dispatched["attributes"]["vfastml.preemptions"] > 0
