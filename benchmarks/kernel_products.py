"""Times of the packed matrix products, ours and torch's."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import torch
from torch.nn.functional import linear

from benchmarks.kernel_bench import DTYPES, FORMATS, Bench, ModelShape
from benchmarks.kernel_records import KernelRun
from vfastml.text_engine.cpu_kernels.packing import Packer
from vfastml.text_engine.cpu_kernels.single import InputRows
from vfastml.text_engine.decoders.linear import packs

Start = Callable[[torch.Tensor, int], Callable[[], object]]
"""From rows of inputs, [rows, inputs] float32, and a number of layers to what computes so many products of them. What
has to be done to the inputs is done before."""

_BYTES = {"float32": 4, "bfloat16": 2, "int8": 1}


def product_runs(bench: Bench, formats: Sequence[str], rows: Sequence[int]) -> Iterator[KernelRun]:
    """Each matrix of a layer, and the vocabulary, with so many rows."""
    for name in formats:
        for kernel, (outputs, inputs) in _matrices(bench.shape).items():
            yield from _runs(bench, name, kernel, torch.empty(outputs, inputs).uniform_(-1, 1), rows)


def _matrices(shape: ModelShape) -> dict[str, tuple[int, int]]:
    """(outputs, inputs)."""
    heads = shape.heads * shape.head_dim
    return {
        "qkv": (heads + 2 * shape.kv_heads * shape.head_dim, shape.hidden),
        "o": (shape.hidden, heads),
        "gate_up": (2 * shape.intermediate, shape.hidden),
        "down": (shape.hidden, shape.intermediate),
        "vocabulary": (shape.vocab, shape.hidden),
    }


def _runs(bench: Bench, name: str, kernel: str, weight: torch.Tensor, rows: Sequence[int]) -> Iterator[KernelRun]:
    num_bytes = weight.numel() * _BYTES[name]
    operations = {number: 2.0 * number * weight.numel() for number in rows}
    layers = {number: bench.num_layers(num_bytes, operations[number]) for number in rows}
    copies = max(layers.values())

    def times(start: Start) -> dict[int, float]:
        inputs = {number: torch.empty(number, weight.shape[1]).uniform_(-1, 1) for number in rows}
        return {number: bench.best(start(inputs[number], layers[number]), layers[number]) for number in rows}

    # One kind of copies after the other: together they might not fit into memory.
    ours = times(_packed(bench, name, weight, copies))
    others = {title: times(make(weight, copies)) for title, make in _torch_products(name).items()}
    for number in rows:
        yield KernelRun(
            family="products",
            kernel=kernel,
            number_format=name,
            threads=bench.threads,
            rows=number,
            seconds=ours[number],
            others={title: theirs[number] for title, theirs in others.items()},
            num_bytes=num_bytes,
            operations=operations[number],
            least_s=bench.limits.seconds(num_bytes, operations[number], name),
        )


def _packed(bench: Bench, name: str, weight: torch.Tensor, copies: int) -> Start:
    outputs, inputs = weight.shape
    packer = Packer(bench.kernels, FORMATS[name], [(outputs, inputs)] * copies)
    matrices = [packer.matrix(weight) for _ in range(copies)]

    def start(values: torch.Tensor, layers: int) -> Callable[[], object]:
        rows = InputRows(bench.kernels, FORMATS[name], values)
        used = matrices[:layers]
        # `packer` is named for its memory, which the matrices only point to
        return lambda: (packer, bench.single.products(used, rows))

    return start


def _torch_products(name: str) -> dict[str, Callable[[torch.Tensor, int], Start]]:
    """From a weight and a number of copies, by what they are called."""
    if name == "int8":
        return {"torch, oneDNN": _onednn_int8}
    plain: dict[str, Callable[[torch.Tensor, int], Start]] = {
        "torch, linear": lambda weight, copies: _linear(weight.to(DTYPES[name]), copies)
    }
    is_packed = name == "bfloat16" and packs(DTYPES[name])
    return plain | ({"torch, oneDNN": _onednn_packed} if is_packed else {})


def _linear(weight: torch.Tensor, copies: int) -> Start:
    weights = [weight.clone() for _ in range(copies)]

    def start(values: torch.Tensor, layers: int) -> Callable[[], object]:
        x = values.to(weight.dtype)
        return lambda: [linear(x, each) for each in weights[:layers]]

    return start


def _onednn_packed(weight: torch.Tensor, copies: int) -> Start:
    """In the order that oneDNN likes best for the number of rows."""

    def start(values: torch.Tensor, layers: int) -> Callable[[], object]:
        x = values.bfloat16()
        reorder, multiply = torch.ops.mkldnn._reorder_linear_weight, torch.ops.mkldnn._linear_pointwise
        weights = [reorder(weight.bfloat16(), len(x)) for _ in range(min(layers, copies))]
        return lambda: [multiply(x, each, None, "none", [], "") for each in weights]

    return start


def _onednn_int8(weight: torch.Tensor, copies: int) -> Start:
    """A scale for each output, and one for all inputs, which are unsigned: for signed ones it has no fast kernel."""
    scales = weight.abs().amax(1) / 127
    zeros = torch.zeros(len(weight), dtype=torch.int32)
    whole = (weight / scales[:, None]).round().to(torch.int8)
    prepack, multiply = torch.ops.onednn.qlinear_prepack, torch.ops.onednn.qlinear_pointwise

    def start(values: torch.Tensor, layers: int) -> Callable[[], object]:
        scale = float(values.abs().max()) / 127
        x = (values / scale).round().add(128).to(torch.uint8)
        weights = [prepack(whole, list(x.shape)) for _ in range(min(layers, copies))]

        def product(packed: torch.Tensor) -> object:
            return multiply(x, scale, 128, packed, scales, zeros, None, 1.0, 0, torch.float32, "none", [], "")

        return lambda: [product(packed) for packed in weights]

    return start
