"""A trace of a few steps, for a person to look at: torch's profiler, with the parts of a step named."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile, record_function

from vfastml.errors import InvalidRequestError
from vfastml.text_engine.text_engine import StepReplies, TextEngine

logger = logging.getLogger(__name__)

WARM_STEPS = 20
"""Not traced: the first ones are slower than those to come."""
TRACED_STEPS = 5


class StepTrace:
    """Steps an engine. Once, when that is warm, it traces a few steps that follow each other, with a span for each and
    in it `schedule`, `forward`, `sample` and `update`; before and after, a step is as fast as without it."""

    def __init__(self, engine: TextEngine, folder: Path) -> None:
        self._engine = engine
        self._folder = folder
        self._num_steps = 0
        self._profiler: profile | None = None
        self._spans = ExitStack()

    def step(self) -> StepReplies:
        """`engine.step`. The last one that is traced takes a moment longer: the file is written."""
        self._num_steps += 1
        if not WARM_STEPS < self._num_steps <= WARM_STEPS + TRACED_STEPS:
            return self._engine.step()
        if self._profiler is None:
            self._begin()
        with record_function("step"):
            replies = self._engine.step()
        if self._num_steps == WARM_STEPS + TRACED_STEPS:
            self._end(TRACED_STEPS)
        return replies

    def close(self) -> None:
        """No further step will come: what was traced is written."""
        if self._profiler is not None:
            self._end(self._num_steps - WARM_STEPS)
        elif self._num_steps <= WARM_STEPS:
            logger.warning("no trace: %d steps were made, and it begins after %d", self._num_steps, WARM_STEPS)

    def _begin(self) -> None:
        for name, (owner, method) in self._engine.parts().items():
            self._spans.callback(_put_span(owner, method, name))
        cuda = [ProfilerActivity.CUDA] if torch.cuda.is_available() else []
        self._profiler = profile(activities=[ProfilerActivity.CPU, *cuda])
        self._profiler.start()

    def _end(self, num_steps: int) -> None:
        assert self._profiler is not None
        self._profiler.stop()
        self._spans.close()
        path = self._folder / f"steps-{datetime.now():%Y%m%d-%H%M%S}.json"
        try:
            self._profiler.export_chrome_trace(str(path))
            logger.info("traced %d steps: open %s at ui.perfetto.dev or in chrome://tracing", num_steps, path)
        except (OSError, RuntimeError) as error:  # the steps were made: their replies must not be lost with their trace
            logger.error("no trace: %s cannot be written (%s)", path, error)
        self._profiler = None


def writable_folder(path: str | Path) -> Path:
    """The folder, made if need be. Raises InvalidRequestError, which names the flag, if it cannot be written."""
    folder = Path(path)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            return folder
    except OSError as error:
        reason = error.strerror or str(error)
        raise InvalidRequestError(f"--profile cannot write into {folder} ({reason}): name another folder.") from error


def _put_span(owner: object, method: str, name: str) -> Callable[[], None]:
    """Wraps one object's method in a span; returns what takes it off again. The step itself has no hooks for this: it
    would pay for them always."""
    plain = getattr(owner, method)

    def spanned(*args: Any, **options: Any) -> Any:
        with record_function(name):
            return plain(*args, **options)

    take_off = partial(setattr, owner, method, plain) if method in vars(owner) else partial(delattr, owner, method)
    setattr(owner, method, spanned)
    return take_off
