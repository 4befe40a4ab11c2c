"""What an engine was asked for. What it settled on after measuring is a `Limits` (engine/dispatch_replies.py)."""

from __future__ import annotations

import re
from dataclasses import dataclass
from fractions import Fraction

BLOCK_SIZE = 16
"""Tokens in a KV block: small enough to waste little, large enough to keep block tables short. Some attention backends
read only larger ones (`Decoder.block_size`)."""

DECODERS = ("auto", "hf", "fused", "fused-torch", "fused-triton")
"""What `decoder` may be."""
QUANTIZATIONS = ("int8", "fp8")
"""What `quantization` may be, beside None."""
ATTENTION_BACKENDS = ("auto", "triton", "flash", "varlen", "sdpa")
"""What `attention_backend` may be."""
LOAD_FORMATS = ("auto", "dummy")
"""What `load_format` may be."""
MEASURING = ("auto", "never", "again")
"""What `measure_limits` may be."""

_UNITS = {"": 1, "B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "KIB": 2**10, "MIB": 2**20, "GIB": 2**30}


@dataclass(frozen=True)
class EngineConfig:
    """Never written after start. None means: decide from the model and the device."""

    device: str = "auto"
    """`auto`, `cpu`, `cuda` or `cuda:N`."""
    dtype: str = "auto"
    """`auto`, `float32`, `bfloat16` or `float16`: of weights, activations and KV cache."""
    max_model_len: int | None = None
    """Tokens of prompt and answer together; default: what the model was made for, as far as the KV cache holds it."""
    max_num_seqs: int | None = None
    """Sequences in the running batch; default: as many as raise the throughput, up to 64 on a CPU and 256 on a GPU."""
    max_num_batched_tokens: int | None = None
    """Tokens computed in one step; default: what prompts need to be computed at nearly full speed, on a CPU only as far
    as a step stays short."""
    kv_cache_memory: int | None = None
    """Bytes for the KV cache; default: a share of the memory that is free once the model is loaded, or what
    `gpu_memory` leaves."""
    gpu_memory: float | None = None
    """All that this process takes of a GPU, weights, KV cache and steps: up to 1 a share of the card, else bytes;
    default: no bound."""
    enable_prefix_caching: bool = True
    decoder: str = "auto"
    """`auto` (our own for the Llama family, transformers' modules for all others), `hf` (transformers'), `fused` (our
    own, with our kernels where they can be had), `fused-torch` (our own without kernels) or `fused-triton` (our own
    with the kernels for GPUs)."""
    attention_backend: str = "auto"
    """`auto` (on a GPU the first of these that runs there), `triton` (our own kernels), `flash` (the package
    flash_attn, or flash_attn_interface), `varlen` (torch's varlen_attn) or `sdpa` (plain torch, on every device)."""
    quantization: str | None = None
    """8-bit weights and activations: `int8` on a CPU, `fp8` on a GPU from Ada and Hopper on; None: as `dtype` says."""
    load_format: str = "auto"
    """`auto`: the folder's weights; `dummy`: random ones in the shapes of its config, for measuring speed. Then no
    weights need be there; the tokenizer must."""
    target_tpot_ms: float | None = None
    """Milliseconds between the tokens of a text that the sizes above, where not given, are to keep to."""
    target_ttft_ms: float | None = None
    """Milliseconds within which one step computes a prompt, while there is no other request."""
    measure_limits: str = "auto"
    """Whether the sizes above that are not given come from measured steps: `auto` (of the first start of this model on
    this machine), `never` (then they are 64 and 128, float32: 64, and on a GPU 256 and 8192) or `again` (of this
    start)."""
    cuda_graphs: bool = True
    """Decode steps on a GPU are recorded once and replayed, where decoder and attention allow it."""
    overlap: bool = True
    """A step is made ready while the GPU computes the one before it."""
    chat_template: str | None = None
    """A Jinja template in the place of the model's own."""
    tool_call_parser: str = "auto"
    """How the model writes tool calls, one of TOOL_CALL_PARSERS (chat_dialect.py); `auto` sees it in the template."""
    reasoning_parser: str = "auto"
    """How it writes reasoning, one of REASONING_PARSERS."""


def parse_gpu_memory(text: str) -> float:
    """Bytes as in `parse_memory`, or a share of a GPU such as `0.5`. Raises ValueError, with the accepted forms."""
    share = re.fullmatch(r"\s*(\d*\.?\d+)\s*", text)
    if share is not None and 0 < float(share[1]) <= 1:
        return float(share[1])
    try:
        if (size := parse_memory(text)) > 1:
            return size
    except ValueError:
        pass
    raise ValueError("expected a share of the GPU, such as 0.5, or an amount of memory, such as 10GiB")


def parse_memory(text: str) -> int:
    """Bytes of `300MB`, `1GiB`, `1.5 GB` or a plain number. Raises ValueError that names the accepted forms."""
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([A-Za-z]*)\s*", text)
    if match is None or match[2].upper() not in _UNITS:
        raise ValueError("expected a number of bytes, or a number with KB, MB, GB, KiB, MiB or GiB, such as 300MB")
    size = int(Fraction(match[1]) * _UNITS[match[2].upper()])
    if size <= 0:
        raise ValueError("memory must be more than zero")
    return size
