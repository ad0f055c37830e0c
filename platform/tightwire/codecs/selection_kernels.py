"""The hot loops that find the largest magnitudes, compiled by numba.

`tightwire.codecs.sparse_twins` and `tests/unit/test_codecs_sparse.py` hold the same in pure NumPy.
"""

import numba
import numpy as np

from tightwire.arrays import Ints
from tightwire.codecs.kernels import FOLD, Bits
from tightwire.wire.words import ones64

_BINS = 2048
_BLOCK = 4096


@numba.njit(cache=True, nogil=True)
def _range(magnitudes, size):  # type: ignore[no-untyped-def]  # numba infers the types
    low, high = magnitudes[0], magnitudes[0]
    for i in range(size):
        low = min(low, magnitudes[i])
        high = max(high, magnitudes[i])
    return low, high


@numba.njit(cache=True, nogil=True)
def _rank(magnitudes, k):  # type: ignore[no-untyped-def]  # numba infers the types
    """As `rank`, in a copy that it overwrites. Neighbours are counted apart, so that none waits for another."""
    size = np.uint64(magnitudes.size)
    bins = _BINS if size > 32 * _BINS else _BINS // 8
    counts = np.empty(4 * bins, np.int32)
    while True:
        low, high = _range(magnitudes, size)
        if low == high:
            return low, k
        shift = np.uint32(0)
        while np.uint32(high - low) >> shift >= bins:
            shift += np.uint32(1)
        counts[:] = 0
        for i in range(size):
            at = np.uint64(np.uint32(magnitudes[i] - low) >> shift)
            counts[at << np.uint64(2) | i & np.uint64(3)] += 1
        chosen = bins - 1
        while True:
            here = counts[4 * chosen : 4 * chosen + 4].sum()
            if here >= k:
                break
            k -= here
            chosen -= 1
        if shift == 0:
            return np.int32(low + chosen), k
        left = np.uint64(0)
        for i in range(size):
            magnitudes[left] = magnitudes[i]
            left += np.uint64(np.uint32(magnitudes[i] - low) >> shift == chosen)
        size = left


def rank(raw: Bits, k: int) -> tuple[int, int]:
    """The k-th largest magnitude, and how many of those equal to it are among the k largest.

    By histograms, each of a bin of the one before, so that many equal values take no longer.

    Args:
        raw: Shape (m,); the sign bit is ignored.
        k: 1 to m.
    """
    least, ties = _rank(raw & FOLD, k)
    return int(least), int(ties)


@numba.njit(cache=True, nogil=True, inline="always")
def _lowest(mask):  # type: ignore[no-untyped-def]  # numba infers the types
    """(which bit of the mask is the lowest set, the mask without it); of no set bits, lane 0."""
    below = mask - np.uint64(1)
    return ones64(~mask & below) & np.uint64(63), mask & below


@numba.njit(cache=True, nogil=True, inline="always")
def _put(raw, first, mask, found, out, count):  # type: ignore[no-untyped-def]  # numba infers the types
    lane, mask = _lowest(mask)
    at = first + lane
    found[count] = at
    out[count] = raw[at]
    return mask, count + np.uint64(1)


@numba.njit(cache=True, nogil=True)
def _reaching(raw, threshold, found, out):  # type: ignore[no-untyped-def]  # numba infers the types
    """As `reaching`; how many there are, or some number beyond the room. Room is two less than what the arrays hold."""
    count, room = np.uint64(0), np.uint64(found.size - 2)
    for start in range(0, raw.size // 64 * 64, 64):
        part = raw[start : start + 64]
        mask = np.uint64(0)
        for lane in range(64):
            mask |= np.uint64((part[lane] & FOLD) >= threshold) << np.uint64(lane)
        after = count + ones64(mask)
        if after > room:
            return after
        first = np.uint64(start)
        mask, count = _put(raw, first, mask, found, out, count)
        mask, count = _put(raw, first, mask, found, out, count)
        while mask:
            mask, count = _put(raw, first, mask, found, out, count)
        count = after
    for at in range(raw.size // 64 * 64, raw.size):
        if count > room:
            return count
        found[count] = at
        out[count] = raw[at]
        count += np.uint64((raw[at] & FOLD) >= threshold)
    return count


def reaching(raw: Bits, threshold: int, room: int) -> tuple[Ints, Bits] | None:
    """Indices, increasing, and bits of the magnitudes that are `threshold` or more; None if there are more than `room`.

    Of 64 values at a time two are taken unasked, so that where few reach the threshold no branch depends on the data.

    Args:
        raw: Shape (n,), contiguous; the sign bit is ignored.
        threshold: 0 to 2**31 - 1.
        room: How many are expected at most.
    """
    found, out = np.empty(room + 2, np.int64), np.empty(room + 2, np.int32)
    count = _reaching(raw, np.int32(threshold), found, out)
    return (found[:count], out[:count]) if count <= room else None


@numba.njit(cache=True, nogil=True)
def _around(raw, low, high, inside):  # type: ignore[no-untyped-def]  # numba infers the types
    above, tops, bottoms, count = np.int64(0), np.int64(0), np.int64(0), np.uint64(0)
    room = np.uint64(inside.size - 64)
    whole = raw.size // 64 * 64
    for start in range(0, whole, 64):
        part = raw[start : start + 64]
        over, top, bottom = np.int32(0), np.int32(0), np.int32(0)
        mask = np.uint64(0)
        for lane in range(64):
            magnitude = part[lane] & FOLD
            over += np.int32(magnitude > high)
            top += np.int32(magnitude == high)
            bottom += np.int32(magnitude == low)
        for lane in range(64):
            magnitude = part[lane] & FOLD
            mask |= np.uint64((magnitude > low) & (magnitude < high)) << np.uint64(lane)
        above += over
        tops += top
        bottoms += bottom
        while mask:
            lane, mask = _lowest(mask)
            inside[count] = part[lane] & FOLD
            count += np.uint64(1)
        if count > room:
            break
    for i in range(whole, raw.size):
        magnitude = raw[i] & FOLD
        above += np.int64(magnitude > high)
        tops += np.int64(magnitude == high)
        bottoms += np.int64(magnitude == low)
        if low < magnitude < high and count < inside.size:
            inside[count] = magnitude
            count += np.uint64(1)
    return above, tops, np.int64(count), bottoms


def around(raw: Bits, low: int, high: int, room: int) -> tuple[int, int, Bits, int] | None:
    """How many magnitudes are above `high`, how many equal to it; those between; how many are equal to `low`.

    Args:
        raw: Shape (n,), contiguous; the sign bit is ignored.
        low: 0 or more.
        high: Greater.
        room: How many are expected between, at most; None is returned for more.
    """
    inside = np.empty(room + 64, np.int32)
    above, tops, count, bottoms = _around(raw, np.int32(low), np.int32(high), inside)
    return (int(above), int(tops), inside[:count], int(bottoms)) if count <= room else None


@numba.njit(cache=True, nogil=True)
def counted(raw, threshold):  # type: ignore[no-untyped-def]  # numba infers the types
    """How many magnitudes are `threshold` or more, and how many are more."""
    reaching, above = np.int64(0), np.int64(0)
    for start in range(0, raw.size, _BLOCK):
        part = raw[start : start + _BLOCK]
        here, over = np.int32(0), np.int32(0)
        for i in range(part.size):
            magnitude = part[i] & FOLD
            here += np.int32(magnitude >= threshold)
            over += np.int32(magnitude > threshold)
        reaching += here
        above += over
    return reaching, above


@numba.njit(cache=True, nogil=True)
def take(raw, least, ties, found, out):  # type: ignore[no-untyped-def]  # numba infers the types
    """Indices and bits of the magnitudes above `least`, and of the first `ties` that are equal to it.

    `found` and `out` have room for just those.
    """
    count, room = np.uint64(0), np.uint64(found.size)
    whole = raw.size // 64 * 64
    for start in range(0, whole, 64):
        part = raw[start : start + 64]
        mask, equal = np.uint64(0), np.uint64(0)
        for lane in range(64):
            mask |= np.uint64((part[lane] & FOLD) > least) << np.uint64(lane)
        if ties > 0:
            for lane in range(64):
                equal |= np.uint64((part[lane] & FOLD) == least) << np.uint64(lane)
            while equal and ties > 0:
                mask |= equal & (~equal + np.uint64(1))
                equal &= equal - np.uint64(1)
                ties -= 1
        while mask and count < room:
            mask, count = _put(raw, np.uint64(start), mask, found, out, count)
        if count == room:
            return
    for i in range(whole, raw.size):
        magnitude = raw[i] & FOLD
        tie = magnitude == least and ties > 0
        if (magnitude > least or tie) and count < room:
            found[count] = i
            out[count] = raw[i]
            count += np.uint64(1)
            ties -= np.int64(tie)


@numba.njit(cache=True, nogil=True)
def narrow(candidates, bits, least, ties):  # type: ignore[no-untyped-def]  # numba infers the types
    """Move those above `least`, and the first `ties` equal to it, to the front of both, in their order."""
    size, stop, count = np.uint64(bits.size), np.uint64(0), np.uint64(0)
    while stop < size and ties > 0:
        ties -= np.int64((bits[stop] & FOLD) == least)
        stop += np.uint64(1)
    for at in range(stop):
        candidates[count] = candidates[at]
        bits[count] = bits[at]
        count += np.uint64((bits[at] & FOLD) >= least)
    for at in range(stop, size):
        candidates[count] = candidates[at]
        bits[count] = bits[at]
        count += np.uint64((bits[at] & FOLD) > least)
