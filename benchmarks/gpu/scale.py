"""How large everything is: for a card of 80 GB and more, or for a look at whether it runs at all."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import msgspec

from benchmarks.gpu.model_shapes import LLAMA_1B, LLAMA_8B, SMOLLM2, TINY, ModelShape
from benchmarks.gpu.tasks import Workload


@dataclass(frozen=True)
class Most:
    """What no workload may have more of."""

    sequences: int
    input_tokens: int
    output_tokens: int


@dataclass(frozen=True)
class Scale:
    """What differs between the two."""

    device: str
    dtype: str
    large: ModelShape
    middle: ModelShape | None
    small: ModelShape | None
    equality: ModelShape
    copied_bytes: int
    config: dict[str, Any]
    """Of every engine, beside device and dtype."""
    flags: tuple[str, ...]
    """The same for the server."""
    levels: tuple[int, ...]
    """Requests in flight over HTTP."""
    tests: tuple[str, ...]
    """Files and folders. What is slow in the interpreter is not on a card, and so is not left out."""
    test_seconds: float
    environment: dict[str, str] = field(default_factory=dict)
    """Of every part."""
    most: Most | None = None
    patience: float = 1.0
    """Times the budgets of the plan."""

    @property
    def is_real(self) -> bool:
        """Figures mean something."""
        return self.most is None

    def shrunk(self, workload: Workload) -> Workload:
        """The same under the same name, as large as it may be."""
        if (most := self.most) is None:
            return workload
        return msgspec.structs.replace(
            workload,
            sequences=min(workload.sequences, most.sequences),
            concurrency=None if workload.concurrency is None else min(workload.concurrency, most.sequences),
            input_tokens=min(workload.input_tokens, most.input_tokens),
            output_tokens=min(workload.output_tokens, most.output_tokens),
            repeats=1,
        )


_TESTS = "tests/text_engine"
FULL = Scale(
    device="cuda:0",
    dtype="bfloat16",
    large=LLAMA_8B,
    middle=LLAMA_1B,
    small=SMOLLM2,
    equality=SMOLLM2,
    copied_bytes=8_000_000_000,
    config={},
    flags=(),
    levels=(128, 32, 1),
    tests=(f"{_TESTS}/gpu", f"{_TESTS}/triton_kernels", f"{_TESTS}/test_device_sampler.py", f"{_TESTS}/attention"),
    test_seconds=65,
)
DRY = Scale(
    device="cpu",
    dtype="float32",
    large=TINY,
    middle=None,
    small=None,
    equality=TINY,
    copied_bytes=8_000_000,
    config={
        "decoder": "fused-triton",
        "kv_cache_memory": 4_000_000,
        "max_model_len": 1024,
        "max_num_seqs": 4,
        "max_num_batched_tokens": 16,
    },
    flags=("--decoder", "fused-torch", "--kv-cache-memory", "4MB", "--max-model-len", "1024", "--max-num-seqs", "4"),
    levels=(2, 1),
    tests=(f"{_TESTS}/triton_kernels/test_rms_norm.py",),
    test_seconds=60,
    environment={"TRITON_INTERPRET": "1", "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"},
    most=Most(sequences=2, input_tokens=6, output_tokens=2),
    patience=6.0,
)
"""On a CPU, in Triton's interpreter: two layers, and a handful of tokens. The server computes in torch: finding out how
its tokenizer counts takes hundreds of them."""
