"""`python -m tests.text_engine.cpu_kernels.short_of_memory FOLDER`: steps for which the system gives no memory, each
followed by a smaller one. Prints how many of the large ones failed; ends with an error if a small one says something
else than before."""

from __future__ import annotations

import resource
import sys
from pathlib import Path

import psutil
import torch

from vfastml.engine.dispatch_replies import Limits
from vfastml.text_engine import cpu_kernels
from vfastml.text_engine.block_manager import BlockManager
from vfastml.text_engine.decoders.llama_weights import LlamaWeights
from vfastml.text_engine.decoders.native_decoder import NativeDecoder
from vfastml.text_engine.model_runner import ModelRunner
from vfastml.text_engine.sampling import Sampling
from vfastml.text_engine.scheduler import ScheduledBatch, Scheduler
from vfastml.text_engine.sequence import Sequence

PROMPT, NUM_PROMPTS, BLOCK = 480, 60, 16
LARGE = PROMPT * NUM_PROMPTS
NUM_BLOCKS = LARGE // BLOCK + 2 * NUM_PROMPTS
SPARE_MIB = (1, 2, 4, 8, 12, 16, 24, 32)
"""Of these, some run out in the middle of what a large step asks for: about 50 MiB in several pieces."""


def prompts(num_tokens: int) -> ScheduledBatch:
    blocks = BlockManager(NUM_BLOCKS, BLOCK, enable_prefix_caching=False)
    scheduler = Scheduler(blocks, max_num_seqs=NUM_PROMPTS, max_num_batched_tokens=num_tokens)
    for number in range(NUM_PROMPTS):
        tokens = [(number + 3 * place) % 250 for place in range(PROMPT)]
        scheduler.add(Sequence(str(number), tokens, Sampling(max_tokens=1, temperature=0.0), arrival=number))
    return scheduler.schedule()


def fails(runner: ModelRunner, batch: ScheduledBatch, spare_mib: int) -> bool:
    limit = psutil.Process().memory_info().vms + (spare_mib << 20)
    resource.setrlimit(resource.RLIMIT_AS, (limit, resource.RLIM_INFINITY))
    try:
        runner.run(batch)
    except MemoryError:
        return True
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    return False


def main(folder: Path) -> None:
    decoder = NativeDecoder(LlamaWeights.open(folder, torch.float32), cpu_kernels.load("auto"))
    runner = ModelRunner(decoder, Limits(512, NUM_PROMPTS, LARGE, NUM_BLOCKS, BLOCK), ())
    small = runner.run(prompts(PROMPT))
    failed = 0
    for spare_mib in SPARE_MIB:
        failed += fails(runner, prompts(LARGE), spare_mib)
        assert runner.run(prompts(PROMPT)) == small
    print(failed)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
