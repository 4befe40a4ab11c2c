"""The kernels compile for a Hopper GPU, which needs none: what the interpreter lets pass, the compiler may not."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

pytest.importorskip("triton")

_PROGRAM = """
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource, compile
from vfastml.text_engine.triton_kernels import sampling

types = {{"logits": "*{dtype}", "stride": "i32", "vocab_size": "i32", "temperatures": "*fp32", "top_ks": "*i32"}}
types |= {{"top_ps": "*fp32", "log_min_ps": "*fp32", "seeds": "*i64", "stats": "*fp32", "found": "*i32"}}
types |= {{"num_chunks": "i32", "tokens": "*i64", "cutoffs": "*fp32", "CHUNKS": "constexpr"}}
for kernel, warps in ((sampling._scan, 8), (sampling._list_candidates, 8), (sampling._choose, 16)):
    signature = {{name: types[name] for name in kernel.arg_names}}
    constants = {{(number,): {constants}[name] for number, name in enumerate(kernel.arg_names) if name in {constants}}}
    signature |= {{name: "constexpr" for name in {constants} if name in signature}}
    compiled = compile(ASTSource(kernel, signature, constants), GPUTarget("cuda", 90, 32), {{"num_warps": warps}})
    print(compiled.metadata.name, compiled.metadata.shared)
"""


@pytest.mark.parametrize(
    ("dtype", "constants"), [("bf16", {"CHUNKS": 32}), ("fp32", {"CHUNKS": 1, "num_chunks": 1, "vocab_size": 1})]
)
def test_kernels_compile_for_hopper(dtype: str, constants: dict[str, int]) -> None:
    """Triton makes a constant of an argument that is 1."""
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    command = [sys.executable, "-c", _PROGRAM.format(dtype=dtype, constants=constants)]
    run = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=280)
    assert run.returncode == 0, run.stderr[-3000:]
    assert [line.split()[0] for line in run.stdout.splitlines()] == ["_scan", "_list_candidates", "_choose"]
