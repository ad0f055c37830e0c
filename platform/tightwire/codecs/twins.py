"""Pure NumPy twins of the compiled kernels of this room; slow, plain, and equal bit for bit."""

import numpy as np

from tightwire.arrays import Bytes8, Flat, Ints
from tightwire.codecs.uniform import Affine
from tightwire.wire import twins
from tightwire.wire.packing import Codes


def extremes(values: Flat) -> tuple[np.float32, np.float32]:
    """The twin of `tightwire.codecs.kernels.extremes`, for values without NaN; -0 orders before 0."""
    order = np.lexsort((~np.signbit(values), values))
    return values[order[0]], values[order[-1]]


def noise(n: int, key: int) -> Ints:
    """The twin of `tightwire.codecs.kernels.noise` for the values 0 to n - 1."""
    x = np.arange(n, dtype=np.uint32) * np.uint32(0x9E3779B9) ^ np.uint32(key & 0xFFFFFFFF)
    x = (x ^ (x >> np.uint32(16))) * np.uint32(0x21F0AAAD) ^ np.uint32(key >> 32)
    x = (x ^ (x >> np.uint32(15))) * np.uint32(0x735A2D97)
    return ((x ^ (x >> np.uint32(15))) >> np.uint32(8)).astype(np.int64)


def quantise(values: Flat, affine: Affine, bits: int, key: int | None) -> Bytes8:
    """The twin of `tightwire.codecs.uniform.quantise`."""
    real = type(affine.low)
    x = (values - affine.low) * affine.inverse
    if key is None:
        codes = (x + real(0.5)).astype(np.int32)
    else:
        whole = x.astype(np.int32)
        codes = whole + (noise(values.size, key).astype(np.float32) * real(2.0**-24) < x - whole.astype(np.float32))
    return twins.pack(np.minimum(codes, 2**bits - 1).astype(np.uint32), bits)


def dequantise(data: Bytes8, n: int, affine: Affine, bits: int) -> Flat:
    """The twin of `tightwire.codecs.kernels.dequantise`."""
    codes: Codes = twins.unpack(data, n, bits)
    values: Flat = (affine.low + codes.astype(np.float32) * affine.step).astype(np.float32)
    return values


def select(values: Flat, k: int) -> tuple[Ints, Flat]:
    """The twin of `tightwire.codecs.topk.select`."""
    order = np.argsort(-np.abs(values), kind="stable")
    chosen = np.sort(order[:k])
    return chosen, values[chosen]
