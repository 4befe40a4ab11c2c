"""float32 values as whole numbers in the same order, so that a search by parts over them ends."""

import triton
import triton.language as tl

LARGEST = tl.constexpr(3.4028234663852886e38)
"""The largest finite float32."""
_FLIP = tl.constexpr(-2147483648)


@triton.jit
def key_of(value: tl.tensor) -> tl.tensor:
    """int64 keys of float32 values: smaller where the value is smaller, equal where it is equal (-0.0 and 0.0, too)."""
    bits = value.to(tl.int32, bitcast=True).to(tl.int64)
    return tl.where(bits < 0, _FLIP - bits, bits)


@triton.jit
def value_of(key: tl.tensor) -> tl.tensor:
    """The float32 value of an int64 key."""
    return tl.where(key < 0, _FLIP - key, key).to(tl.int32).to(tl.float32, bitcast=True)
