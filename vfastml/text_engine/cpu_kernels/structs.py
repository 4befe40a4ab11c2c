"""The C structs of model.h, attention.h and matrix.h, field by field in their order."""

from __future__ import annotations

import ctypes
from ctypes import POINTER, Structure, c_float, c_int32, c_void_p

F32, BF16, I8 = 0, 1, 2
"""Formats of packed weights."""


class Matrix(Structure):
    _fields_ = (
        ("format", c_int32),
        ("data", c_void_p),
        ("scales", c_void_p),
        ("bias", c_void_p),
        ("outputs", c_int32),
        ("inputs", c_int32),
    )


class Shape(Structure):
    _fields_ = (
        ("num_layers", c_int32),
        ("hidden_size", c_int32),
        ("intermediate_size", c_int32),
        ("num_heads", c_int32),
        ("num_kv_heads", c_int32),
        ("head_dim", c_int32),
        ("block_size", c_int32),
        ("cache_is_bf16", c_int32),
        ("embedding_is_bf16", c_int32),
        ("epsilon", c_float),
        ("scaling", c_float),
    )


class Layer(Structure):
    _fields_ = (
        ("input_norm", c_void_p),
        ("post_norm", c_void_p),
        ("q_norm", c_void_p),
        ("k_norm", c_void_p),
        ("qkv", Matrix),
        ("o", Matrix),
        ("gate_up", Matrix),
        ("down", Matrix),
        ("window", c_int32),
    )


class Ends(Structure):
    _fields_ = (("vocabulary", Matrix), ("embedding", c_void_p), ("final_norm", c_void_p))


class Cache(Structure):
    _fields_ = (("keys", c_void_p), ("values", c_void_p))


class Step(Structure):
    _fields_ = (
        ("token_ids", c_void_p),
        ("positions", c_void_p),
        ("slots", c_void_p),
        ("logits_index", c_void_p),
        ("query_starts", c_void_p),
        ("block_tables", c_void_p),
        ("block_starts", c_void_p),
        ("cosines", c_void_p),
        ("sines", c_void_p),
        ("caches", POINTER(Cache)),
        ("logits", c_void_p),
        ("num_tokens", c_int32),
        ("num_rows", c_int32),
        ("num_logits", c_int32),
    )


def declare(library: ctypes.CDLL) -> ctypes.CDLL:
    """Gives the functions of interface.cpp their types. A call lets other Python threads run meanwhile."""
    library.vfastml_panel.restype = c_int32
    library.vfastml_group.restype = c_int32
    library.vfastml_pack.argtypes = [c_int32, c_void_p, c_void_p, c_void_p, c_int32, c_int32]
    library.vfastml_pack.restype = None
    library.vfastml_decoder_new.argtypes = [POINTER(Shape), POINTER(Layer), POINTER(Ends), c_int32]
    library.vfastml_decoder_new.restype = c_void_p
    library.vfastml_decoder_run.argtypes = [c_void_p, POINTER(Step)]
    library.vfastml_decoder_run.restype = ctypes.c_bool
    library.vfastml_decoder_delete.argtypes = [c_void_p]
    library.vfastml_decoder_delete.restype = None
    for number, struct in enumerate((Matrix, Shape, Layer, Ends, Cache, Step)):
        if library.vfastml_struct_bytes(number) != ctypes.sizeof(struct):
            raise AssertionError(f"{struct.__name__} is declared otherwise in C++")
    return library
