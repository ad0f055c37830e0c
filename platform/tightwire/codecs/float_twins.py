"""Pure NumPy twins of the compiled loops for narrow floats; slow, plain, and equal bit for bit."""

import numpy as np

from tightwire.arrays import AnyArray, Bytes8, Flat
from tightwire.codecs import twins
from tightwire.codecs.minifloat import MiniFloat, Scales
from tightwire.wire import twins as wire_twins

_LARGEST_HALF = np.float32(65504)


def halve_nearest(values: Flat) -> AnyArray:
    """The twin of `tightwire.codecs.float_kernels.halve_nearest`."""
    return np.clip(values, -_LARGEST_HALF, _LARGEST_HALF).astype(np.float16).view(np.uint16)


def halve_stochastic(values: Flat, key: int) -> AnyArray:
    """The twin of `tightwire.codecs.float_kernels.halve_stochastic`."""
    levels = _rounded(np.abs(values), 10, 15, twins.noise(values.size, key))
    halves: AnyArray = (np.minimum(levels, 0x7BFF) | np.signbit(values).astype(np.int64) << 15).astype(np.uint16)
    return halves


def brain_nearest(values: Flat) -> AnyArray:
    """The twin of `tightwire.codecs.float_kernels.brain_nearest`."""
    return _brain(values, None)


def brain_stochastic(values: Flat, key: int) -> AnyArray:
    """The twin of `tightwire.codecs.float_kernels.brain_stochastic`."""
    return _brain(values, key)


def _brain(values: Flat, key: int | None) -> AnyArray:
    size = np.abs(values).view(np.uint32).astype(np.int64)
    upper = np.rint(size / 2**16).astype(np.int64)
    if key is not None:
        upper = (size + (twins.noise(values.size, key) >> 8)) >> 16
    halves: AnyArray = (np.minimum(upper, 0x7F7F) | np.signbit(values).astype(np.int64) << 15).astype(np.uint16)
    return halves


def widen_half(halves: AnyArray) -> Flat:
    """The twin of `tightwire.codecs.float_kernels.widen_half`."""
    return halves.view(np.float16).astype(np.float32)


def widen_brain(halves: AnyArray) -> Flat:
    """The twin of `tightwire.codecs.float_kernels.widen_brain`."""
    return (halves.astype(np.uint32) << 16).view(np.float32)


def _rounded(size: Flat, mantissa: int, bias: int, noise: AnyArray | None) -> AnyArray:
    """Magnitudes as the bits of a narrow float: how often the spacing of floats around it goes into each."""
    normal = size >= 2.0 ** (1 - bias)
    exponent = np.where(normal, np.frexp(size)[1] - 1, 1 - bias)
    scaled = np.ldexp(size.astype(np.float64), mantissa - exponent)
    whole = np.floor(scaled)
    if noise is None:
        scaled = np.rint(scaled)
    else:
        coarse = (noise >> (mantissa + 1)) * 2.0 ** (mantissa - 23) + (scaled - whole) >= 1
        scaled = whole + np.where(normal, coarse, noise * 2.0**-24 < scaled - whole)
    levels: AnyArray = (exponent + bias - 1) * 2**mantissa + scaled.astype(np.int64)
    return levels


def narrow(values: Flat, length: int, scales: Scales, format: MiniFloat, key: int | None) -> Bytes8:
    """The twin of `tightwire.codecs.minifloat_kernels.narrow`."""
    group = np.arange(values.size) // length
    size = np.abs(values) * scales.first[group] * scales.second[group]
    noise = None if key is None else twins.noise(values.size, key)
    levels = np.minimum(_rounded(size, format.mantissa, format.bias, noise), format.top)
    codes = format.zero + np.where(np.signbit(values), -levels, levels)
    return wire_twins.pack(codes.astype(np.uint32), format.bits)


def widen(data: Bytes8, n: int, length: int, scales: Scales, format: MiniFloat) -> Flat:
    """The twin of `tightwire.codecs.minifloat_kernels.widen`."""
    group = np.arange(n) // length
    codes = wire_twins.unpack(data, n, format.bits).astype(np.int64) - format.zero
    exponent, fraction = np.divmod(np.abs(codes), 2**format.mantissa)
    whole = fraction + np.where(exponent > 0, 2**format.mantissa, 0)
    size = np.ldexp(whole.astype(np.float64), np.maximum(exponent, 1) - format.bias - format.mantissa)
    with np.errstate(over="ignore"):  # what overflows is cut
        size = size.astype(np.float32) * scales.first[group] * scales.second[group]
    values: Flat = np.minimum(size, scales.largest[group]) * np.where(codes < 0, -1, 1).astype(np.float32)
    return values
