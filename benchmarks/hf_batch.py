"""transformers' own continuous batching, `generate_batch`, offline."""

from __future__ import annotations

import copy
import inspect
import logging
import time

import torch
from transformers import ContinuousBatchingConfig, PreTrainedModel

from benchmarks.records import RequestRecord

_PAGE_TOKENS = 256
_PAGE_SIZE = "page_size" if "page_size" in inspect.signature(ContinuousBatchingConfig).parameters else "block_size"
"""Its name in this version of transformers."""


class ContinuousBatches:
    """Keeps the KV cache between calls, as a server would. Left to itself it would take most of the machine's memory:
    here it has pages for `rows` sequences of `row_tokens`, and one more for each."""

    def __init__(self, model: PreTrainedModel, rows: int, row_tokens: int) -> None:
        self._model = model
        self._settings = ContinuousBatchingConfig(
            num_blocks=rows * (1 + -(-row_tokens // _PAGE_TOKENS)), **{_PAGE_SIZE: _PAGE_TOKENS}
        )
        logging.getLogger("ContinuousBatchingLogger").setLevel(logging.ERROR)  # it warns that it keeps the cache

    def generate(self, prompts: torch.Tensor, tokens: int) -> list[RequestRecord]:
        """All rows handed over at once, greedy, exactly that many tokens for each."""
        config = copy.deepcopy(self._model.generation_config)
        config.eos_token_id, config.do_sample, config.max_new_tokens = -1, False, tokens
        began = time.perf_counter()
        outputs = self._model.generate_batch(
            prompts.tolist(),
            generation_config=config,
            continuous_batching_config=self._settings,
            record_timestamps=True,
            persistent_manager=True,
        )
        return [
            RequestRecord(
                started_s=0.0,
                e2e_s=output.timestamps[-1] - began,
                asked_tokens=tokens,
                chunks_s=[at - began for at in output.timestamps],
                input_tokens=prompts.shape[1],
                output_tokens=len(output.generated_tokens),
                finish_reason="length",
                error=output.error,
            )
            for output in outputs.values()
        ]

    def close(self) -> None:
        """Ends its thread and gives the cache back."""
        self._model.destroy_cached_continuous_batching_manager()
