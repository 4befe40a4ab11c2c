"""Each kernel by itself, on torch tensors: for tests and benchmarks. A decoder runs all of them in one call."""

from __future__ import annotations

import ctypes
import weakref
from collections.abc import Sequence
from ctypes import POINTER, c_double, c_float, c_int32, c_int64, c_uint64, c_void_p

import torch
from torch.nn.functional import pad

from vfastml.text_engine.batch_inputs import BatchInputs
from vfastml.text_engine.cpu_kernels.kernels import Kernels
from vfastml.text_engine.cpu_kernels.pointers import address, caches_of
from vfastml.text_engine.cpu_kernels.structs import Layer, Matrix, Shape, Step
from vfastml.text_engine.kv_cache import KVCache

MOST_LAYERS = 1024
"""That one call computes one after the other."""


class InputRows:
    """Rows in the form that matrices of a format are multiplied with."""

    def __init__(self, kernels: Kernels, weight_format: int, values: torch.Tensor) -> None:
        """Rounds [rows, columns] float32 as the format asks for."""
        library = _declare(kernels.library)
        self.num_rows, columns = values.shape
        values = values.contiguous()
        self.handle = library.vfastml_inputs_new(weight_format, values.data_ptr(), self.num_rows, columns)
        weakref.finalize(self, library.vfastml_inputs_delete, self.handle)


class SingleKernels:
    """The kernels with a team of threads of their own, which sleep between calls.

    What takes several matrices, the layers of a cache, or `times`, computes them one after the other (at most
    MOST_LAYERS), and returns the last result. All tensors but a cache are float32 and contiguous.
    """

    def __init__(self, kernels: Kernels, num_threads: int) -> None:
        self.kernels = kernels
        self.num_threads = num_threads
        self._library = _declare(kernels.library)
        self._team = self._library.vfastml_team_new(num_threads, MOST_LAYERS)
        weakref.finalize(self, self._library.vfastml_team_delete, self._team)

    def products(self, matrices: Sequence[Matrix], rows: InputRows) -> torch.Tensor:
        """[rows, outputs, padded]. The matrices have one shape, and the format of the rows."""
        _check_number(len(matrices))
        results = torch.empty(rows.num_rows, matrices[-1].outputs)
        together = (Matrix * len(matrices))(*matrices)
        self._library.vfastml_products(
            self._team, together, len(matrices), rows.handle, rows.num_rows, results.data_ptr()
        )
        return results

    def attend(
        self, query: torch.Tensor, cache: KVCache, inputs: BatchInputs, scaling: float, window: int = 0
    ) -> torch.Tensor:
        """[T, heads, dim], the keys and values of the step's own tokens being in the cache. `window` 0: no window."""
        shape, step = _shape(cache, query.shape[1], scaling=scaling), _step(cache, inputs)
        outputs = torch.empty_like(query)
        self._library.vfastml_attend(self._team, shape, step, window, query.data_ptr(), outputs.data_ptr())
        return outputs

    def rope_and_store(
        self,
        heads: torch.Tensor,
        cache: KVCache,
        inputs: BatchInputs,
        angles: tuple[torch.Tensor, torch.Tensor],
        norms: tuple[torch.Tensor, torch.Tensor] | None = None,
        epsilon: float = 0.0,
    ) -> None:
        """Norms queries and keys of [T, heads + 2 * KV heads, dim] if there are weights for it, turns them by `angles`
        (cosines and sines [positions, dim / 2]), all in place, and writes keys and values into the cache."""
        cosines, sines = angles
        shape = _shape(cache, heads.shape[1] - 2 * cache.keys[0].shape[2], epsilon=epsilon)
        step = _step(cache, inputs, cosines=cosines.data_ptr(), sines=sines.data_ptr())
        q_norm, k_norm = norms or (None, None)
        layer = Layer(q_norm=address(q_norm), k_norm=address(k_norm))
        self._library.vfastml_rope_and_store(self._team, shape, layer, step, heads.data_ptr())

    def rms_norm(self, rows: torch.Tensor, weight: torch.Tensor, epsilon: float, times: int = 1) -> torch.Tensor:
        """Of each of [rows, count]."""
        _check_number(times)
        count = len(weight)
        missing = -count % self.kernels.group
        rows, weight = pad(rows, (0, missing)), pad(weight, (0, missing))
        results = torch.empty_like(rows)
        addresses = (rows.data_ptr(), weight.data_ptr(), results.data_ptr())
        self._library.vfastml_rms_norm(self._team, *addresses, len(rows), count, len(weight), epsilon, times)
        return results[:, :count]

    def silu_times(self, gate_up: torch.Tensor, times: int = 1) -> torch.Tensor:
        """silu(gate) * up of [rows, 2 * N] in panels, each a half panel of gates before the same columns' ups."""
        _check_number(times)
        rows, width = gate_up.shape
        results = torch.empty(rows, width // 2)
        addresses = (gate_up.data_ptr(), results.data_ptr())
        self._library.vfastml_silu_times(self._team, *addresses, rows, width // self.kernels.panel, times)
        return results

    def read(self, data: torch.Tensor) -> int:
        """The sum, modulo 2^64, of a tensor's memory as 64-bit numbers: all that can be done is to read it. Its bytes
        are a multiple of 64."""
        return int(self._library.vfastml_read(self._team, data.data_ptr(), data.nbytes))

    def compute(self, weight_format: int, rounds: int) -> float:
        """Multiplies and adds in registers alone, with the instruction for the format. Returns the number of
        operations, a product and its sum being two."""
        return float(self._library.vfastml_compute(self._team, weight_format, rounds))


def _declare(library: ctypes.CDLL) -> ctypes.CDLL:
    """Gives the functions of single.cpp their types."""
    team, inputs, memory = c_void_p, c_void_p, c_void_p
    shape, step = POINTER(Shape), POINTER(Step)
    functions: dict[str, tuple[object, list[object]]] = {
        "team_new": (team, [c_int32, c_int32]),
        "team_delete": (None, [team]),
        "inputs_new": (inputs, [c_int32, memory, c_int32, c_int32]),
        "inputs_delete": (None, [inputs]),
        "products": (None, [team, POINTER(Matrix), c_int32, inputs, c_int32, memory]),
        "attend": (None, [team, shape, step, c_int32, memory, memory]),
        "rope_and_store": (None, [team, shape, POINTER(Layer), step, memory]),
        "rms_norm": (None, [team, memory, memory, memory, c_int32, c_int32, c_int32, c_float, c_int32]),
        "silu_times": (None, [team, memory, memory, c_int32, c_int32, c_int32]),
        "read": (c_uint64, [team, memory, c_int64]),
        "compute": (c_double, [team, c_int32, c_int32]),
    }
    for name, (result, arguments) in functions.items():
        function = getattr(library, f"vfastml_{name}")
        function.restype, function.argtypes = result, arguments
    return library


def _shape(cache: KVCache, num_heads: int, epsilon: float = 0.0, scaling: float = 0.0) -> Shape:
    keys = cache.keys[0]
    _check_number(len(cache.keys))
    return Shape(
        num_layers=len(cache.keys),
        num_heads=num_heads,
        num_kv_heads=keys.shape[2],
        head_dim=keys.shape[3],
        block_size=cache.block_size,
        cache_is_bf16=keys.dtype == torch.bfloat16,
        epsilon=epsilon,
        scaling=scaling,
    )


def _step(cache: KVCache, inputs: BatchInputs, **angles: int) -> Step:
    return Step(
        positions=inputs.position_ids.data_ptr(),
        slots=inputs.slots.data_ptr(),
        query_starts=inputs.query_starts.ctypes.data,
        block_tables=inputs.block_tables.ctypes.data,
        block_starts=inputs.block_starts.ctypes.data,
        caches=caches_of(cache),
        num_tokens=len(inputs.input_ids),
        num_rows=len(inputs.context_lens),
        **angles,
    )


def _check_number(layers: int) -> None:
    if not 1 <= layers <= MOST_LAYERS:
        raise ValueError(f"one call computes 1 to {MOST_LAYERS} layers, not {layers}")
