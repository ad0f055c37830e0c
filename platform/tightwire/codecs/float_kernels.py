"""The loops of the stages that send floats of few bits, compiled; their twins are in `tightwire.codecs.float_twins`.

Everything is arithmetic on the bits of a float32: with the sign taken off and the exponent's bias moved, the bits above
`shift` are the narrow float, and what is added below them rounds it.
"""

from typing import Any

import numba
import numpy as np
from numba import types
from numba.extending import intrinsic

from tightwire.codecs.kernels import STEP, noise
from tightwire.wire.words import add32, load16, load32, shl32, shr32

MAGNITUDE = np.uint32(0x7FFFFFFF)
"""All bits of a float32 but its sign."""
SIGN = np.uint32(0x80000000)
UNIT = np.float32(2.0**-24)
"""What one unit of `noise` is worth."""

_LEAST_HALF = np.uint32(113 << 23)  # 2**-14, the smallest normal float16
_HALF_BIAS = np.uint32(2**32 - (112 << 23))  # moves the bias of a float32's exponent to that of a float16
_HALF_TOP = np.uint32(0x7BFF)
_BRAIN_TOP = np.uint32(0x7F7F)
_EXACT = np.float32(2.0**22)


@intrinsic
def _bits_of(typingctx, real):  # type: ignore[no-untyped-def]  # noqa: ARG001 - numba infers the types
    def codegen(context, builder, signature, arguments):  # type: ignore[no-untyped-def]  # noqa: ARG001 - as above
        return builder.bitcast(arguments[0], context.get_value_type(types.uint32))

    return types.uint32(types.float32), codegen


@intrinsic
def _float_of(typingctx, word):  # type: ignore[no-untyped-def]  # noqa: ARG001 - numba infers the types
    def codegen(context, builder, signature, arguments):  # type: ignore[no-untyped-def]  # noqa: ARG001 - as above
        return builder.bitcast(arguments[0], context.get_value_type(types.float32))

    return types.float32(types.uint32), codegen


bits_of: Any = _bits_of  # its first argument is numba's, which mypy cannot know
"""The bits of a float32, as a uint32."""
float_of: Any = _float_of  # likewise
"""The float32 of the bits that a uint32 holds."""


@numba.njit(cache=True, nogil=True, inline="always")
def put(out, at, value, weight):  # type: ignore[no-untyped-def]  # numba infers the types
    """Write `value` to out[at], or add it times `weight`, if that is not None: the loop is compiled for either."""
    if weight is None:
        out[at] = value
    else:
        out[at] += np.float32(value * weight)


@numba.njit(cache=True, nogil=True)
def deliver(data, out, weight):  # type: ignore[no-untyped-def]  # numba infers the types
    """Write the floats that are the bytes `data` to `out`, or add them times `weight`.

    Returns:
        The largest magnitude's bits.
    """
    largest = np.uint32(0)
    for i in range(out.size):
        raw = load32(data, i)
        largest = max(largest, np.uint32(raw & MAGNITUDE))
        put(out, i, float_of(raw), weight)
    return largest


@numba.njit(cache=True, nogil=True, inline="always")
def _round_half(rounded, small, raw):  # type: ignore[no-untyped-def]  # numba infers the types
    size = np.uint32(raw & MAGNITUDE)
    half = min(small if size < _LEAST_HALF else rounded, _HALF_TOP)
    return np.uint16(half | (shr32(raw, np.uint32(16)) & np.uint32(0x8000)))


@numba.njit(cache=True, nogil=True)
def halve_nearest(raw, halves):  # type: ignore[no-untyped-def]  # numba infers the types
    """Float16 of the floats with bits `raw`, rounded to nearest even and cut at 65504."""
    half = np.float32(0.5)  # a multiple of 2**-24, the smallest float16, is what 1/2 and less can be told apart by
    for i in range(raw.size):
        size = np.uint32(raw[i] & MAGNITUDE)
        based = add32(size, _HALF_BIAS)
        odd = shr32(based, np.uint32(13)) & np.uint32(1)
        rounded = shr32(add32(add32(based, np.uint32(0xFFF)), np.uint32(odd)), np.uint32(13))
        small = np.uint32(bits_of(np.float32(float_of(size) + half)) - bits_of(half))
        halves[i] = _round_half(rounded, small, raw[i])


@numba.njit(cache=True, nogil=True, inline="always")
def stochastic_small(size, units, draw):  # type: ignore[no-untyped-def]  # numba infers the types
    """A small float times `units`, rounded up with the probability of its fraction; cut where it is not small."""
    scaled = np.float32(size * units)
    scaled = min(scaled, _EXACT)
    whole = np.int32(scaled)
    above = np.int32(np.float32(draw) * UNIT < scaled - np.float32(whole))
    return np.uint32(np.int32(whole + above))


@numba.njit(cache=True, nogil=True)
def halve_stochastic(raw, halves, k0, k1):  # type: ignore[no-untyped-def]  # numba infers the types
    """Float16 of the floats with bits `raw`, rounded up with the probability of what is lost, cut at 65504."""
    walk = np.uint32(0)
    units = np.float32(2.0**24)
    for i in range(raw.size):
        draw = noise(walk, k0, k1)
        walk = add32(walk, STEP)
        size = np.uint32(raw[i] & MAGNITUDE)
        below = shr32(np.uint32(draw), np.uint32(24 - 13))
        rounded = shr32(add32(add32(size, _HALF_BIAS), below), np.uint32(13))
        halves[i] = _round_half(rounded, stochastic_small(float_of(size), units, draw), raw[i])


@numba.njit(cache=True, nogil=True, inline="always")
def _wide(half):  # type: ignore[no-untyped-def]  # numba infers the types
    size = np.uint32(half & np.uint16(0x7FFF))
    normal = np.uint32(shl32(size, np.uint32(13)) + np.uint32(112 << 23))
    small = bits_of(np.float32(np.int32(size)) * UNIT)
    sign = shl32(np.uint32(half & np.uint16(0x8000)), np.uint32(16))
    return float_of(np.uint32((small if size < np.uint32(0x400) else normal) | sign))


@numba.njit(cache=True, nogil=True)
def widen_half(data, out, weight):  # type: ignore[no-untyped-def]  # numba infers the types
    """Write the float16s that are the bytes `data` to `out`, or add them times `weight`.

    Returns:
        The largest magnitude's bits.
    """
    largest = np.uint32(0)
    for i in range(out.size):
        half = load16(data, i)
        largest = max(largest, np.uint32(half & np.uint16(0x7FFF)))
        put(out, i, _wide(half), weight)
    return largest


@numba.njit(cache=True, nogil=True)
def brain_nearest(raw, halves):  # type: ignore[no-untyped-def]  # numba infers the types
    """Upper halves of the floats with bits `raw`, rounded to nearest even, the exponent never all ones."""
    for i in range(raw.size):
        size = np.uint32(raw[i] & MAGNITUDE)
        odd = shr32(size, np.uint32(16)) & np.uint32(1)
        upper = shr32(add32(add32(size, np.uint32(0x7FFF)), np.uint32(odd)), np.uint32(16))
        halves[i] = np.uint16(min(upper, _BRAIN_TOP) | (shr32(raw[i], np.uint32(16)) & np.uint32(0x8000)))


@numba.njit(cache=True, nogil=True)
def brain_stochastic(raw, halves, k0, k1):  # type: ignore[no-untyped-def]  # numba infers the types
    """Upper halves of the floats with bits `raw`, rounded up with the probability of the lower half."""
    walk = np.uint32(0)
    for i in range(raw.size):
        below = shr32(np.uint32(noise(walk, k0, k1)), np.uint32(24 - 16))
        walk = add32(walk, STEP)
        upper = shr32(add32(np.uint32(raw[i] & MAGNITUDE), below), np.uint32(16))
        halves[i] = np.uint16(min(upper, _BRAIN_TOP) | (shr32(raw[i], np.uint32(16)) & np.uint32(0x8000)))


@numba.njit(cache=True, nogil=True)
def widen_brain(data, out, weight):  # type: ignore[no-untyped-def]  # numba infers the types
    """Write the bfloat16s that are the bytes `data` to `out`, or add them times `weight`.

    Returns:
        The largest magnitude's bits.
    """
    largest = np.uint32(0)
    for i in range(out.size):
        half = load16(data, i)
        largest = max(largest, np.uint32(half & np.uint16(0x7FFF)))
        put(out, i, float_of(shl32(np.uint32(half), np.uint32(16))), weight)
    return largest
