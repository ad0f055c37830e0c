"""The loops between reals and packed floats of few bits, compiled; their twins are in `tightwire.codecs.float_twins`.

A group is a run of `length` values with a scale of its own. A value times its group's scale, in two factors so that
neither overflows, is a float with its own exponent; `base` are the bits of the float32 whose exponent is the one of the
narrow format's denormals, `shift` the bits that the narrow mantissa lacks, `units` the inverse of the smallest narrow
float. The code is `zero` plus or minus the magnitude's bits, so codes are in the order of their values.
"""

import numba
import numpy as np

from tightwire.codecs.float_kernels import MAGNITUDE, SIGN, bits_of, float_of, put, stochastic_small
from tightwire.codecs.kernels import STEP, noise, noise_word
from tightwire.wire.packing import LANES, ROWS, find_row, get_tail, put_row, put_tail
from tightwire.wire.words import add32, mul32, shl32, shr32

_NORMAL = np.uint32(1 << 23)
"""What the bits of a float's exponent count in."""
_PAUSE = 15
"""Runs for which `_normal` is given up, at most, after one in which it failed."""


@numba.njit(cache=True, nogil=True, inline="always")
def _signed(level, raw, zero):  # type: ignore[no-untyped-def]  # numba infers the types
    sign = np.int32(np.int32(raw) >> np.int32(31))
    return np.uint32(np.int32(zero + np.int32(np.int32(np.int32(level) ^ sign) - sign)))


@numba.njit(cache=True, nogil=True, inline="always")
def _stochastic(value, walk, first, second, shift, base, units, top, zero, k0, k1):  # type: ignore[no-untyped-def]  # numba infers the types
    raw = bits_of(value)
    size = np.float32(np.float32(float_of(np.uint32(raw & MAGNITUDE)) * first) * second)
    draw = noise(walk, k0, k1)
    moved = np.uint32(bits_of(size) - base)
    rounded = shr32(add32(moved, shr32(np.uint32(draw), np.uint32(24 - shift))), shift)
    small = stochastic_small(size, units, draw)
    level = small if bits_of(size) < np.uint32(base + _NORMAL) else rounded
    return _signed(min(level, top), raw, zero)


@numba.njit(cache=True, nogil=True, inline="always")
def _nearest(value, first, second, shift, base, units, top, zero):  # type: ignore[no-untyped-def]  # numba infers the types
    raw = bits_of(value)
    size = np.float32(np.float32(float_of(np.uint32(raw & MAGNITUDE)) * first) * second)
    moved = np.uint32(bits_of(size) - base)
    odd = np.uint32(shr32(moved, shift) & np.uint32(1))
    below = np.uint32(shl32(np.uint32(1), np.uint32(shift - 1)) - np.uint32(1))
    rounded = shr32(add32(add32(moved, below), odd), shift)
    half = np.float32(np.float32(2.0**23) / units)  # floats from here to twice it are whole multiples of the smallest
    small = np.uint32(bits_of(np.float32(size + half)) - bits_of(half))
    level = small if bits_of(size) < np.uint32(base + _NORMAL) else rounded
    return _signed(min(level, top), raw, zero)


@numba.njit(cache=True, nogil=True, inline="always")
def _normal(values, start, scale, shift, base, top, zero, k0, k1, codes):  # type: ignore[no-untyped-def]  # numba infers the types
    """What `_stochastic` gives for values that come to 0 or to a normal narrow float; returns whether all do."""
    walk = mul32(np.uint32(start), STEP)
    least = np.uint32(0xFFFFFFFF)
    back = np.uint32(32 - shift)
    for lane in range(values.size):
        raw = bits_of(values[lane])
        size = bits_of(np.float32(float_of(np.uint32(raw & MAGNITUDE)) * scale))
        least = min(least, add32(size, np.uint32(0xFFFFFFFF)))  # a zero is no small one
        below = shr32(noise_word(walk, k0, k1), back)
        walk = add32(walk, STEP)
        level = shr32(add32(np.uint32(max(size, base) - base), below), shift)
        codes[lane] = _signed(min(level, top), raw, zero)
    return least >= np.uint32(base + _NORMAL - np.uint32(1))


@numba.njit(cache=True, nogil=True)
def _run(values, start, length, first, second, shift, base, units, top, zero, keys, pace, codes):  # type: ignore[no-untyped-def]  # numba infers the types
    """Codes of `values`, the first of which is number `start`; `pace` is (runs to pause, last pause) of `_normal`."""
    at = 0
    while at < values.size:
        group = (start + at) // length
        end = min((group + 1) * length - start, values.size)
        part, into = values[at:end], codes[at:end]
        one, two = first[group], second[group]
        if keys is None:
            for lane in range(end - at):
                into[lane] = _nearest(part[lane], one, two, shift, base, units, top, zero)
        else:
            if pace[0] == 0 and one == np.float32(1):
                if _normal(part, start + at, two, shift, base, top, zero, keys[0], keys[1], into):
                    pace[1] = 0
                    at = end
                    continue
                pace[1] = min(2 * pace[1] + 1, _PAUSE)
                pace[0] = pace[1] + 1
            pace[0] = max(pace[0] - 1, 0)
            walk = mul32(np.uint32(start + at), STEP)
            for lane in range(end - at):
                into[lane] = _stochastic(part[lane], walk, one, two, shift, base, units, top, zero, keys[0], keys[1])
                walk = add32(walk, STEP)
        at = end


@numba.njit(cache=True, nogil=True)
def narrow(values, length, first, second, shift, base, units, top, zero, keys, bits, words, tail):  # type: ignore[no-untyped-def]  # numba infers the types
    """Packed codes of `values`, rounded up with the probability of what is lost, or to the nearest where keys is None.

    Magnitudes beyond `top` are cut to it.
    """
    codes, pace = np.empty(LANES, np.uint32), np.zeros(2, np.int64)
    columns = values.size // ROWS
    for block in range(0, columns, LANES):
        lanes = min(LANES, columns - block)
        for row in range(ROWS):
            offset, here, _ = find_row(words, block * bits, row, lanes, bits)
            target = codes if offset else here
            start = block * ROWS + row * lanes
            part = values[start : start + lanes]
            _run(part, start, length, first, second, shift, base, units, top, zero, keys, pace, target)
            if offset:
                put_row(codes, words, block * bits, row, lanes, bits)
    start = columns * ROWS
    _run(values[start:], start, length, first, second, shift, base, units, top, zero, keys, pace, codes)
    for at in range(values.size - start):
        put_tail(tail, at, codes[at], bits)


@numba.njit(cache=True, nogil=True, inline="always")
def _level(code, zero):  # type: ignore[no-untyped-def]  # numba infers the types
    from_zero = np.int32(np.int32(code) - zero)
    sign = np.int32(from_zero >> np.int32(31))
    return np.uint32(np.int32(np.int32(from_zero ^ sign) - sign)), np.uint32(np.uint32(sign) & SIGN)


@numba.njit(cache=True, nogil=True, inline="always")
def _value(level, sign, first, second, largest, shift, base, least):  # type: ignore[no-untyped-def]  # numba infers the types
    moved = shl32(level, shift)
    normal = float_of(add32(moved, base))
    small = np.float32(np.float32(np.int32(level)) * least)
    size = np.float32(np.float32((small if moved < _NORMAL else normal) * first) * second)
    return float_of(np.uint32(bits_of(min(size, largest)) | sign))


@numba.njit(cache=True, nogil=True)
def widen(words, tail, bits, length, first, second, largest, shift, base, least, zero, weight, out):  # type: ignore[no-untyped-def]  # numba infers the types
    """Decode packed codes to `out`, or add them times `weight`; no magnitude goes beyond its group's `largest`.

    Returns:
        The largest magnitude's code.
    """
    mask = np.uint32((np.int64(1) << bits) - 1)
    most = np.uint32(0)
    columns = out.size // ROWS
    for block in range(0, columns, LANES):
        lanes = min(LANES, columns - block)
        for row in range(ROWS):
            offset, here, following = find_row(words, block * bits, row, lanes, bits)
            start = block * ROWS + row * lanes
            at = start
            while at < start + lanes:
                group = at // length
                end = min((group + 1) * length, start + lanes)
                part, lower = out[at:end], here[at - start : end - start]
                one, two, peak = first[group], second[group], largest[group]
                if offset + bits > 32:
                    back, upper = np.uint32(32 - offset), following[at - start : end - start]
                    for lane in range(end - at):
                        code = np.uint32((shr32(lower[lane], offset) | shl32(upper[lane], back)) & mask)
                        level, sign = _level(code, zero)
                        most = max(most, level)
                        put(part, lane, _value(level, sign, one, two, peak, shift, base, least), weight)
                else:
                    for lane in range(end - at):
                        level, sign = _level(np.uint32(shr32(lower[lane], offset) & mask), zero)
                        most = max(most, level)
                        put(part, lane, _value(level, sign, one, two, peak, shift, base, least), weight)
                at = end
    start = columns * ROWS
    for at in range(start, out.size):
        group = at // length
        level, sign = _level(get_tail(tail, at - start, bits), zero)
        most = max(most, level)
        put(out, at, _value(level, sign, first[group], second[group], largest[group], shift, base, least), weight)
    return most
