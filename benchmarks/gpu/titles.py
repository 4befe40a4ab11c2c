"""What figures and workloads are called by those that measure them and those that show them."""

from __future__ import annotations

COPY, READ = "copy, read and written, GB/s", "read, GB/s"
"""A copy counts its bytes twice."""
STEP_GB = "a step reads, GB"
CACHED = "cached, %"
READY = "ready after, s"
EQUAL, ERROR, REFERENCE_ERROR = "equal, %", "error, %", "transformers' own error, %"
PASSED, FAILED, SKIPPED, NOT_RUN = "passed", "failed", "skipped", "not run"

DEFAULT = "default"
"""The case that the others are compared with."""
HTTP = "HTTP"
LOADING, MEMORY, TESTS = "loading", "memory", "tests"
GREEDY, LOGITS = "greedy tokens, float32", "logits"
SATURATION, LONG = "256/256, all at once", "1000/1000"
PREFIX, NOTHING_SHARED = "prefix, 90 % shared", "prefix, nothing shared"
KERNELS, KERNEL_STEPS = "kernels", "kernels of a decode step"


def batch(sequences: int) -> str:
    """Prompts that all come at once, and run side by side."""
    return f"batch {sequences}"


def closed_loop(concurrency: int) -> str:
    """The same workload offline and over HTTP."""
    return f"closed loop, c={concurrency}"
