"""The model server, with the same flags, whose model some prompts break. A token of the tiny models is a byte: one
character of a prompt decides."""

from __future__ import annotations

from prebuilt_apps.openai.model_server import main
from tests.tiny_models import byte_tokenizer
from vfastml.text_engine.model_runner import ModelRunner
from vfastml.text_engine.sampling import SampledToken
from vfastml.text_engine.scheduler import ScheduledBatch

POISON, GLUTTON, CROWD = "~", "^", "|"
"""A step with such a row raises; finds no memory; finds no memory for more than CROWD_FITS tokens."""
CROWD_FITS = 3

_POISON, _GLUTTON, _CROWD = byte_tokenizer().convert_tokens_to_ids([POISON, GLUTTON, CROWD])


def _break_down(batch: ScheduledBatch) -> None:
    prompts = {token for row in batch.rows for token in row.sequence.tokens[: row.sequence.num_prompt_tokens]}
    if _POISON in prompts:
        raise RuntimeError("poisoned")
    num_tokens = sum(row.num_tokens for row in batch.rows)
    if _GLUTTON in prompts or (_CROWD in prompts and num_tokens > CROWD_FITS):
        raise MemoryError


def _break_runs() -> None:
    """When all has been computed: half of a failed step's work is done."""
    run = ModelRunner.run

    def run_and_break_down(runner: ModelRunner, batch: ScheduledBatch) -> list[list[SampledToken]]:
        sampled = run(runner, batch)
        _break_down(batch)
        return sampled

    ModelRunner.run = run_and_break_down  # type: ignore[method-assign]


if __name__ == "__main__":
    _break_runs()
    main()
