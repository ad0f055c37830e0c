"""The loops between reals and packed codes of centroids, compiled; their twins are in `tightwire.codecs.kmeans_twins`.

Tables of all groups lie one after another: those of group g are tables[starts[g]:starts[g + 1]], in order, and
thresholds[i] is the largest float32 that is not beyond the middle between tables[i] and tables[i + 1]. So the code of
the centroid nearest to a value, of the lower one on a tie, is the number of its group's thresholds below the value.
"""

import numba
import numpy as np

from tightwire.codecs import sixteen
from tightwire.codecs.float_kernels import MAGNITUDE, bits_of, float_of, put
from tightwire.codecs.sixteen import look_up16, search16
from tightwire.wire.packing import LANES, ROWS, find_row, get_tail, put_row, put_tail
from tightwire.wire.words import shl32, shr32

BINS = 2048
"""Of the grid that finds a value's neighbourhood among many thresholds."""
_QUARTER = np.float32(0.25)
_INFINITE = np.float32(np.inf)
_WIDE = sixteen.WIDE


@numba.njit(cache=True, nogil=True)
def _threshold(thresholds, at, end):  # type: ignore[no-untyped-def]  # numba infers the types
    return thresholds[at] if at < end else _INFINITE


@numba.njit(cache=True, nogil=True, inline="always")
def _fifteen(t, at, end):  # type: ignore[no-untyped-def]  # numba infers the types
    return (
        _threshold(t, at, end),
        _threshold(t, at + 1, end),
        _threshold(t, at + 2, end),
        _threshold(t, at + 3, end),
        _threshold(t, at + 4, end),
        _threshold(t, at + 5, end),
        _threshold(t, at + 6, end),
        _threshold(t, at + 7, end),
        _threshold(t, at + 8, end),
        _threshold(t, at + 9, end),
        _threshold(t, at + 10, end),
        _threshold(t, at + 11, end),
        _threshold(t, at + 12, end),
        _threshold(t, at + 13, end),
        _threshold(t, at + 14, end),
    )


@numba.njit(cache=True, nogil=True)
def _has(code, bit):  # type: ignore[no-untyped-def]  # numba infers the types
    return np.uint32(code & np.uint32(bit)) != np.uint32(0)


@numba.njit(cache=True, nogil=True)
def _pick16(b3, b2, b1, b0, t):  # type: ignore[no-untyped-def]  # numba infers the types
    low = _pick8(b2, b1, b0, t[0], t[1], t[2], t[3], t[4], t[5], t[6], t[7])
    high = _pick8(b2, b1, b0, t[8], t[9], t[10], t[11], t[12], t[13], t[14], t[15])
    return high if b3 else low


@numba.njit(cache=True, nogil=True)
def _pick8(b2, b1, b0, v0, v1, v2, v3, v4, v5, v6, v7):  # type: ignore[no-untyped-def]  # numba infers the types
    low = (v3 if b0 else v2) if b1 else (v1 if b0 else v0)
    high = (v7 if b0 else v6) if b1 else (v5 if b0 else v4)
    return high if b2 else low


@numba.njit(cache=True, nogil=True)
def _search16(x, t):  # type: ignore[no-untyped-def]  # numba infers the types
    b3 = x > t[7]
    b2 = x > (t[11] if b3 else t[3])
    left, right = (t[5] if b2 else t[1]), (t[13] if b2 else t[9])
    b1 = x > (right if b3 else left)
    left, right = (t[2] if b1 else t[0]), (t[6] if b1 else t[4])
    lower = right if b2 else left
    left, right = (t[10] if b1 else t[8]), (t[14] if b1 else t[12])
    upper = right if b2 else left
    b0 = x > (upper if b3 else lower)
    return np.uint32(
        np.uint32(np.uint32(8) if b3 else np.uint32(0))
        | np.uint32(np.uint32(4) if b2 else np.uint32(0))
        | np.uint32(np.uint32(2) if b1 else np.uint32(0))
        | np.uint32(np.uint32(1) if b0 else np.uint32(0))
    )


@numba.njit(cache=True, nogil=True, inline="always")
def _assign_few(values, start, length, starts, thresholds, table, shift, codes):  # type: ignore[no-untyped-def]  # numba infers the types
    """Put codes, shifted left, to `codes`, on top of what is there where the shift is not 0; `table` is scratch."""
    keep = np.uint32(0xFFFFFFFF) if shift else np.uint32(0)
    at = 0
    while at < values.size:
        group = (start + at) // length
        end = min((group + 1) * length - start, values.size)
        part, into = values[at:end], codes[at:end]
        t = _fifteen(thresholds, starts[group], starts[group + 1] - 1)
        done = 0
        if _WIDE:
            for place in range(16):
                table[place] = t[min(place, 14)]
            done = (end - at) & ~15
            for lane in range(0, done, 16):
                search16(table, part, lane, shift, into)
        for lane in range(done, end - at):
            into[lane] = (into[lane] & keep) | shl32(_search16(part[lane], t), shift)
        at = end


@numba.njit(cache=True, nogil=True)
def _assign_many(values, start, length, starts, thresholds, codes):  # type: ignore[no-untyped-def]  # numba infers the types
    for at in range(values.size):
        group = (start + at) // length
        low, left = starts[group], starts[group + 1] - starts[group]
        while left > 1:
            half = left >> 1
            low += half * np.int64(values[at] > thresholds[low + half - 1])
            left -= half
        codes[at] = np.uint32(low - starts[group])


@numba.njit(cache=True, nogil=True)
def place_of(x, offset):  # type: ignore[no-untyped-def]  # numba infers the types
    """An integer below 2**29 that grows with `x`, or stays: linear up to 4 * `offset`, logarithmic beyond; odd."""
    raw = bits_of(x)
    size = np.float32(np.float32(float_of(np.uint32(raw & MAGNITUDE)) * _QUARTER) + offset)
    beyond = np.int32(bits_of(size) - bits_of(offset))
    sign = np.int32(np.int32(raw) >> np.int32(31))
    return np.int32(np.int32(np.int32(beyond >> np.int32(2)) ^ sign) - sign)


@numba.njit(cache=True, nogil=True)
def _bin(x, offset, low, shift):  # type: ignore[no-untyped-def]  # numba infers the types
    place = np.int32(np.int32(place_of(x, offset) - low) >> shift)
    return np.uint32(min(max(place, np.int32(0)), np.int32(BINS - 1)))


@numba.njit(cache=True, nogil=True)
def grid(thresholds, offset, low, shift, below, edges):  # type: ignore[no-untyped-def]  # numba infers the types
    """Fill a grid of `BINS` bins: the bin of x is (place_of(x, offset) - low) >> shift, or the nearest there is.

    Args:
        thresholds: In order, shape (k,).
        offset: As `place_of`.
        low: The place of the first threshold.
        shift: As said.
        below: Takes how many thresholds lie in bins before each bin, shape (BINS,).
        edges: Takes the first threshold in each bin, or infinity, shape (BINS,).

    Returns:
        The most thresholds that lie in one bin.
    """
    below[:] = 0
    edges[:] = _INFINITE
    for j in range(thresholds.size - 1, -1, -1):
        place = _bin(thresholds[j], offset, low, shift)
        below[place] += np.uint32(1)
        edges[place] = thresholds[j]
    total, most = np.uint32(0), np.uint32(0)
    for place in range(BINS):
        here = below[place]
        below[place] = total
        total = np.uint32(total + here)
        most = max(most, here)
    return most


@numba.njit(cache=True, nogil=True)
def gridded(thresholds, offset, below, edges):  # type: ignore[no-untyped-def]  # numba infers the types
    """`grid` from the first threshold to the last, as fine as its bins allow; returns (most, low, shift)."""
    low, high = place_of(thresholds[0], offset), place_of(thresholds[thresholds.size - 1], offset)
    shift = np.int32(0)
    while np.int32(high - low) >> shift >= BINS:
        shift = np.int32(shift + 1)
    return grid(thresholds, offset, low, shift, below, edges), low, shift


@numba.njit(cache=True, nogil=True, inline="always")
def _assign_grid(values, most, offset, low, shift, below, edges, thresholds, codes):  # type: ignore[no-untyped-def]  # numba infers the types
    for lane in range(values.size):
        codes[lane] = _bin(values[lane], offset, low, shift)
    for lane in range(values.size):
        place = codes[lane]
        codes[lane] = np.uint32(below[place] + np.uint32(values[lane] > edges[place]))
    for _ in range(most - 1):
        for lane in range(values.size):
            code = codes[lane]
            codes[lane] = np.uint32(code + np.uint32(values[lane] > thresholds[code]))


@numba.njit(cache=True, nogil=True)
def assign(values, length, starts, thresholds, guide, bits, words, tail):  # type: ignore[no-untyped-def]  # numba infers the types
    """Packed codes of the nearest centroids.

    `guide` is (most, offset, low, shift, below, edges) of `grid`, where there is one group, or None.
    """
    few = True
    for group in range(starts.size - 1):
        few &= starts[group + 1] - starts[group] <= 16
    codes, table = np.empty(LANES, np.uint32), np.empty(16, np.float32)
    columns = values.size // ROWS
    for block in range(0, columns, LANES):
        lanes = min(LANES, columns - block)
        for row in range(ROWS):
            offset, here, _ = find_row(words, block * bits, row, lanes, bits)
            start = block * ROWS + row * lanes
            part = values[start : start + lanes]
            if few and offset + bits <= 32:
                _assign_few(part, start, length, starts, thresholds, table, offset, here)
                continue
            target = codes if offset else here
            if guide is not None:
                most, middle, low, shift, below, edges = guide
                _assign_grid(part, most, middle, low, shift, below, edges, thresholds, target)
            elif few:
                _assign_few(part, start, length, starts, thresholds, table, np.uint32(0), target)
            else:
                _assign_many(part, start, length, starts, thresholds, target)
            if offset:
                put_row(codes, words, block * bits, row, lanes, bits)
    start = columns * ROWS
    _assign_many(values[start:], start, length, starts, thresholds, codes)
    for at in range(values.size - start):
        put_tail(tail, at, codes[at], bits)


@numba.njit(cache=True, nogil=True)
def _entry(tables, at, last):  # type: ignore[no-untyped-def]  # numba infers the types
    return tables[min(at, last)]


@numba.njit(cache=True, nogil=True, inline="always")
def _sixteen(t, at, last):  # type: ignore[no-untyped-def]  # numba infers the types
    return (
        _entry(t, at, last),
        _entry(t, at + 1, last),
        _entry(t, at + 2, last),
        _entry(t, at + 3, last),
        _entry(t, at + 4, last),
        _entry(t, at + 5, last),
        _entry(t, at + 6, last),
        _entry(t, at + 7, last),
        _entry(t, at + 8, last),
        _entry(t, at + 9, last),
        _entry(t, at + 10, last),
        _entry(t, at + 11, last),
        _entry(t, at + 12, last),
        _entry(t, at + 13, last),
        _entry(t, at + 14, last),
        _entry(t, at + 15, last),
    )


@numba.njit(cache=True, nogil=True)
def look_up(words, tail, bits, length, starts, tables, weight, out):  # type: ignore[no-untyped-def]  # numba infers the types
    """Decode packed codes to `out`, or add them times `weight`; returns whether every code is in its group's table."""
    codes, table = np.empty(LANES, np.uint32), np.empty(16, np.float32)
    mask = np.uint32((np.int64(1) << bits) - 1)
    good = True
    columns = out.size // ROWS
    for block in range(0, columns, LANES):
        lanes = min(LANES, columns - block)
        for row in range(ROWS):
            offset, here, following = find_row(words, block * bits, row, lanes, bits)
            start = block * ROWS + row * lanes
            part = out[start : start + lanes]
            if offset + bits > 32:
                back = np.uint32(32 - offset)
                for lane in range(lanes):
                    codes[lane] = (shr32(here[lane], offset) | shl32(following[lane], back)) & mask
                here, offset = codes[:lanes], np.uint32(0)
            good &= _look_up(here, offset, start, bits, length, starts, tables, weight, table, part)
    start = columns * ROWS
    for at in range(out.size - start):
        codes[at] = get_tail(tail, at, bits)
    rest = codes[: out.size - start]
    return good & _look_up(rest, np.uint32(0), start, bits, length, starts, tables, weight, table, out[start:])


@numba.njit(cache=True, nogil=True, inline="always")
def _look_up(codes, shift, start, bits, length, starts, tables, weight, table, out):  # type: ignore[no-untyped-def]  # numba infers the types
    """`look_up` for codes that lie `shift` bits up in words of their own; `table` is scratch."""
    mask = np.uint32((np.int64(1) << bits) - 1)
    good = True
    at = 0
    while at < codes.size:
        group = (start + at) // length
        end = min((group + 1) * length - start, codes.size)
        part, into = codes[at:end], out[at:end]
        first = starts[group]
        last = np.uint32(starts[group + 1] - first - 1)
        if last < mask:
            most = np.uint32(0)
            for lane in range(end - at):
                most = max(most, np.uint32(shr32(part[lane], shift) & mask))
            if most > last:
                good = False
        if bits <= 4:
            done = 0
            if _WIDE:
                for place in range(16):
                    table[place] = tables[first + min(place & np.int64(mask), np.int64(last))]
                done = (end - at) & ~15
                for lane in range(0, done, 16):
                    look_up16(table, part, lane, shift, weight, into)
            t = _sixteen(tables, first, starts[group + 1] - 1)
            for lane in range(done, end - at):
                code = np.uint32(shr32(part[lane], shift) & mask)
                put(into, lane, _pick16(_has(code, 8), _has(code, 4), _has(code, 2), _has(code, 1), t), weight)
        else:
            entries = tables[first : starts[group + 1]]
            for lane in range(end - at):
                put(into, lane, entries[min(np.uint32(shr32(part[lane], shift) & mask), last)], weight)
        at = end
    return good
