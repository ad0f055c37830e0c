"""Compiled loops between reals and packed codes on even grids, group by group; twins in `tightwire.codecs.twins`.

A group is a run of `length` values with a grid of its own. Rows of a packed block are cut where groups end, so that
the inner loops know one grid. No loop is compiled with fast-math: the bits are the same on every machine.
"""

import numba
import numpy as np

from tightwire.codecs.kernels import STEP, noise
from tightwire.wire.packing import LANES, ROWS, find_row, get_tail, put_row, put_tail
from tightwire.wire.words import add32, mul32, shl32, shr32

HUGE, TINY = 2.0**125, 2.0**-100
"""Beyond this edge, or below this step, a grid is computed in float64."""


@numba.njit(cache=True, nogil=True)
def grids(low, high, steps, middle, stretch, out):  # type: ignore[no-untyped-def]  # numba infers the types
    """Where each group's grid begins, its inverse step times `stretch`, the value of its first code, and its step.

    Args:
        low: Shape (groups,), float32.
        high: Likewise, no less than low.
        steps: From low to high.
        middle: Steps from low to the value of the first code.
        stretch: A factor of the inverse step.
        out: Takes them, shape (4, groups), float64.

    Returns:
        Whether float32 suffices to compute with them.
    """
    plain = True
    for group in range(low.size):
        start, end = np.float64(low[group]), np.float64(high[group])
        step = (end - start) / steps
        out[0, group] = start
        out[1, group] = steps / (end - start) * stretch if end > start else 0.0
        out[2, group] = start + middle * step
        out[3, group] = step
        if max(abs(start), abs(end)) >= HUGE or 0 < step < TINY:
            plain = False
    return plain


@numba.njit(cache=True, nogil=True, inline="always")
def _within(x, least, most):  # type: ignore[no-untyped-def]  # numba infers the types
    x = x if x > least else least  # noqa: FURB136 - this is one instruction, and takes a NaN to the least
    return x if x < most else most  # noqa: FURB136 - likewise


@numba.njit(cache=True, nogil=True, inline="always")
def _stochastic(value, walk, low, inverse, least, most, unit, zero, k0, k1):  # type: ignore[no-untyped-def]  # numba infers the types
    x = _within((value - low) * inverse, least, most)
    whole = np.floor(x)
    above = np.int32(np.float32(noise(walk, k0, k1)) * unit < x - whole)
    return np.uint32(np.int32(np.int32(whole) + above) + zero)


@numba.njit(cache=True, nogil=True, inline="always")
def shifted(value, low, inverse, least, most, shift, zero):  # type: ignore[no-untyped-def]  # numba infers the types
    """The code of one value: rounded down after `shift` is added, kept from least to most, plus `zero`."""
    return np.uint32(np.int32(np.floor(_within((value - low) * inverse + shift, least, most))) + zero)


@numba.njit(cache=True, nogil=True)
def quantise_stochastic(values, length, low, inverse, least, most, unit, zero, k0, k1, bits, words, tail):  # type: ignore[no-untyped-def]  # numba infers the types
    """Packed codes of `values`: (value - low) * inverse, kept from least to most, rounded up or down at random.

    It is rounded up with the probability of its fraction; to the whole number comes `zero`. All reals are of one type.
    """
    codes = np.empty(LANES, np.uint32)
    columns = values.size // ROWS
    for first in range(0, columns, LANES):
        lanes = min(LANES, columns - first)
        for row in range(ROWS):
            offset, here, _ = find_row(words, first * bits, row, lanes, bits)
            target = codes if offset else here
            start = first * ROWS + row * lanes
            at = start
            while at < start + lanes:
                group = at // length
                end = min((group + 1) * length, start + lanes)
                part, into = values[at:end], target[at - start : end - start]
                bottom, scale = low[group], inverse[group]
                walk = mul32(np.uint32(at), STEP)
                for lane in range(end - at):
                    into[lane] = _stochastic(part[lane], walk, bottom, scale, least, most, unit, zero, k0, k1)
                    walk = add32(walk, STEP)
                at = end
            if offset:
                put_row(codes, words, first * bits, row, lanes, bits)
    start = columns * ROWS
    for at in range(start, values.size):
        group, walk = at // length, mul32(np.uint32(at), STEP)
        code = _stochastic(values[at], walk, low[group], inverse[group], least, most, unit, zero, k0, k1)
        put_tail(tail, at - start, code, bits)


@numba.njit(cache=True, nogil=True)
def quantise_shifted(values, length, low, inverse, least, most, shift, zero, bits, words, tail):  # type: ignore[no-untyped-def]  # numba infers the types
    """As `quantise_stochastic`, but `shift` is added and the sum rounded down: 0 truncates, 1/2 gives the nearest."""
    codes = np.empty(LANES, np.uint32)
    columns = values.size // ROWS
    for first in range(0, columns, LANES):
        lanes = min(LANES, columns - first)
        for row in range(ROWS):
            offset, here, _ = find_row(words, first * bits, row, lanes, bits)
            target = codes if offset else here
            start = first * ROWS + row * lanes
            at = start
            while at < start + lanes:
                group = at // length
                end = min((group + 1) * length, start + lanes)
                part, into = values[at:end], target[at - start : end - start]
                bottom, scale = low[group], inverse[group]
                for lane in range(end - at):
                    into[lane] = shifted(part[lane], bottom, scale, least, most, shift, zero)
                at = end
            if offset:
                put_row(codes, words, first * bits, row, lanes, bits)
    start = columns * ROWS
    for at in range(start, values.size):
        group = at // length
        code = shifted(values[at], low[group], inverse[group], least, most, shift, zero)
        put_tail(tail, at - start, code, bits)


@numba.njit(cache=True, nogil=True)
def quantise_sign(values, words, tail):  # type: ignore[no-untyped-def]  # numba infers the types
    """Packed codes of one bit: 1 for what is 0 or more, -0 included."""
    columns = values.size // ROWS
    for first in range(0, columns, LANES):
        lanes = min(LANES, columns - first)
        here = words[first : first + lanes]
        here[:] = 0
        for row in range(ROWS):
            start = first * ROWS + row * lanes
            part, bit = values[start : start + lanes], shl32(np.uint32(1), np.uint32(row))
            for lane in range(lanes):
                here[lane] |= bit if part[lane] >= 0 else np.uint32(0)
    start = columns * ROWS
    for at in range(start, values.size):
        put_tail(tail, at - start, np.uint32(values[at] >= 0), 1)


@numba.njit(cache=True, nogil=True)
def _value(code, low, step, unit, zero):  # type: ignore[no-untyped-def]  # numba infers the types
    if unit is None:
        return np.float32(low + np.float32(np.int32(code)) * step)
    return np.float32((np.float32(np.int32(np.int32(code) - zero)) * unit) * step)


@numba.njit(cache=True, nogil=True)
def _deliver(part, lane, value, weight):  # type: ignore[no-untyped-def]  # numba infers the types
    if weight is None:
        part[lane] = value
    else:
        part[lane] += value * weight


@numba.njit(cache=True, nogil=True)
def dequantise(words, tail, bits, length, low, step, unit, zero, weight, out):  # type: ignore[no-untyped-def]  # numba infers the types
    """Decode packed codes to `out`, or add them times `weight`.

    A code's value is low + code * step, or (code - zero) * unit * step where `unit` is given.

    Returns:
        The largest code.
    """
    mask = np.uint32((np.int64(1) << bits) - 1)
    largest = np.uint32(0)
    columns = out.size // ROWS
    for first in range(0, columns, LANES):
        lanes = min(LANES, columns - first)
        for row in range(ROWS):
            offset, here, following = find_row(words, first * bits, row, lanes, bits)
            start = first * ROWS + row * lanes
            at = start
            while at < start + lanes:
                group = at // length
                end = min((group + 1) * length, start + lanes)
                part, lower = out[at:end], here[at - start : end - start]
                bottom, scale = low[group], step[group]
                if offset + bits > 32:
                    back, upper = np.uint32(32 - offset), following[at - start : end - start]
                    for lane in range(end - at):
                        code = np.uint32((shr32(lower[lane], offset) | shl32(upper[lane], back)) & mask)
                        largest = max(largest, code)
                        _deliver(part, lane, _value(code, bottom, scale, unit, zero), weight)
                else:
                    for lane in range(end - at):
                        code = np.uint32(shr32(lower[lane], offset) & mask)
                        largest = max(largest, code)
                        _deliver(part, lane, _value(code, bottom, scale, unit, zero), weight)
                at = end
    start = columns * ROWS
    for at in range(start, out.size):
        group, code = at // length, get_tail(tail, at - start, bits)
        largest = max(largest, code)
        _deliver(out, at, _value(code, low[group], step[group], unit, zero), weight)
    return largest
