"""Faults inside a model server that a test has started: with this folder on PYTHONPATH, Python runs this file first.

The folder STEP_FAULTS may have a file `sleep` with a number of seconds, or one called `break`: the next step takes that
long, or fails. With NO_TEMPORARY_FOLDER set there is none.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from collections.abc import Iterable
from importlib import import_module
from pathlib import Path
from typing import Any


def take(file: Path) -> str | None:
    """Its text, once."""
    if not file.exists():
        return None
    text = file.read_text()
    file.unlink()
    return text


def make_steps_faulty(folder: Path) -> None:
    server = import_module("vfastml.models_servers.model_server_text_hf").TextGenerationModelServerHF
    healthy = server.step

    def step(self: Any) -> Iterable[Any]:
        if seconds := take(folder / "sleep"):
            time.sleep(float(seconds))
        if take(folder / "break") is not None:
            raise RuntimeError("broken on purpose")
        return healthy(self)

    server.step = step


if "STEP_FAULTS" in os.environ and "prebuilt_apps.openai.model_server" in sys.orig_argv:
    make_steps_faulty(Path(os.environ["STEP_FAULTS"]))
if "NO_TEMPORARY_FOLDER" in os.environ:
    tempfile._candidate_tempdir_list = lambda: ["/nowhere"]  # type: ignore[attr-defined]
