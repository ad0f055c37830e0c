"""The hot loops of the codecs, compiled by numba; `tightwire.codecs.twins` holds the same in pure NumPy, equal in bits.

No loop is compiled with fast-math, so nothing is contracted or reordered and the bits are the same on every machine.
"""

import numba
import numpy as np
import numpy.typing as npt

from tightwire.arrays import Flat, Ints
from tightwire.wire.packing import LANES, ROWS, find_row, get_tail, put_row, put_tail
from tightwire.wire.words import add32, mul32, ones64, shl32, shr32, xor32

Bits = npt.NDArray[np.int32]
"""The bits of floats, shape (n,)."""

STEP = np.uint32(0x9E3779B9)
"""What the noise of one value and the next are apart, before they are mixed."""
FOLD = np.int32(0x7FFFFFFF)
"""All bits of a float32 but its sign; also what maps negative floats to integers of the same order."""


@numba.njit(cache=True, nogil=True)
def _extremes(raw):  # type: ignore[no-untyped-def]  # numba infers the types
    low = np.int32(0x7FFFFFFF)
    high = np.int32(-0x80000000)
    for i in range(raw.size):
        key = np.int32(raw[i] ^ ((raw[i] >> np.int32(31)) & FOLD))
        low = min(low, key)
        high = max(high, key)
    return low, high


def extremes(values: Flat) -> tuple[np.float32, np.float32]:
    """Smallest and largest of `values` in one pass, by the integer order of their bits.

    A NaN orders beyond the infinities, so both results are finite just when all values are.

    Args:
        values: Shape (n,), n > 0, contiguous.
    """
    keys = np.array(_extremes(values.view(np.int32)), np.int32)
    both = (keys ^ ((keys >> np.int32(31)) & FOLD)).view(np.float32)
    return both[0], both[1]


@numba.njit(cache=True, nogil=True, inline="always")
def noise(walk, k0, k1):  # type: ignore[no-untyped-def]  # numba infers the types
    """A uniform integer in [0, 2**24) for the value whose index times `STEP` is `walk`: a keyed 32-bit mix.

    The mix is Wellons' "Prospecting for hash functions", two rounds, k1 entering between them.
    """
    x = xor32(walk, k0)
    x = xor32(mul32(xor32(x, shr32(x, np.uint32(16))), np.uint32(0x21F0AAAD)), k1)
    x = mul32(xor32(x, shr32(x, np.uint32(15))), np.uint32(0x735A2D97))
    return np.int32(shr32(xor32(x, shr32(x, np.uint32(15))), np.uint32(8)))


@numba.njit(cache=True, nogil=True, inline="always")
def _stochastic(value, walk, low, inverse, unit, top, k0, k1):  # type: ignore[no-untyped-def]  # numba infers the types
    x = (value - low) * inverse
    code = np.int32(x)
    above = np.int32(np.float32(noise(walk, k0, k1)) * unit < x - np.float32(code))
    return np.uint32(min(np.int32(code + above), top))


@numba.njit(cache=True, nogil=True, inline="always")
def _nearest(value, low, inverse, half, top):  # type: ignore[no-untyped-def]  # numba infers the types
    return np.uint32(min(np.int32((value - low) * inverse + half), top))


@numba.njit(cache=True, nogil=True)
def quantise_stochastic(values, low, inverse, unit, top, k0, k1, bits, words, tail):  # type: ignore[no-untyped-def]  # numba infers the types
    """Affine codes of `values`, rounded up with the probability of their fraction, packed into `words` and `tail`."""
    codes = np.empty(LANES, np.uint32)
    columns = values.size // ROWS
    for first in range(0, columns, LANES):
        lanes = min(LANES, columns - first)
        for row in range(ROWS):
            offset, here, _ = find_row(words, first * bits, row, lanes, bits)
            target = codes if offset else here
            start = first * ROWS + row * lanes
            part = values[start : start + lanes]
            walk = mul32(np.uint32(start), STEP)
            for lane in range(lanes):
                target[lane] = _stochastic(part[lane], walk, low, inverse, unit, top, k0, k1)
                walk = add32(walk, STEP)
            if offset:
                put_row(codes, words, first * bits, row, lanes, bits)
    start = columns * ROWS
    for at in range(values.size - start):
        walk = mul32(np.uint32(start + at), STEP)
        put_tail(tail, at, _stochastic(values[start + at], walk, low, inverse, unit, top, k0, k1), bits)


@numba.njit(cache=True, nogil=True)
def quantise_nearest(values, low, inverse, half, top, bits, words, tail):  # type: ignore[no-untyped-def]  # numba infers the types
    """Affine codes of `values`, rounded to the nearest, packed into `words` and `tail`."""
    codes = np.empty(LANES, np.uint32)
    columns = values.size // ROWS
    for first in range(0, columns, LANES):
        lanes = min(LANES, columns - first)
        for row in range(ROWS):
            start = first * ROWS + row * lanes
            part = values[start : start + lanes]
            for lane in range(lanes):
                codes[lane] = _nearest(part[lane], low, inverse, half, top)
            put_row(codes, words, first * bits, row, lanes, bits)
    start = columns * ROWS
    for at in range(values.size - start):
        put_tail(tail, at, _nearest(values[start + at], low, inverse, half, top), bits)


@numba.njit(cache=True, nogil=True, inline="always")
def _value(code, low, step):  # type: ignore[no-untyped-def]  # numba infers the types
    return low + np.float32(np.int32(code)) * step


@numba.njit(cache=True, nogil=True)
def dequantise(words, tail, bits, low, step, out):  # type: ignore[no-untyped-def]  # numba infers the types
    """Write low + code * step for every packed code to `out`."""
    mask = np.uint32((np.int64(1) << bits) - 1)
    columns = out.size // ROWS
    for first in range(0, columns, LANES):
        lanes = min(LANES, columns - first)
        for row in range(ROWS):
            offset, here, following = find_row(words, first * bits, row, lanes, bits)
            start = first * ROWS + row * lanes
            part = out[start : start + lanes]
            if offset + bits > 32:
                back = np.uint32(32 - offset)
                for lane in range(lanes):
                    part[lane] = _value((shr32(here[lane], offset) | shl32(following[lane], back)) & mask, low, step)
            else:
                for lane in range(lanes):
                    part[lane] = _value(shr32(here[lane], offset) & mask, low, step)
    start = columns * ROWS
    for at in range(out.size - start):
        out[start + at] = _value(get_tail(tail, at, bits), low, step)


@numba.njit(cache=True, nogil=True, inline="always")
def _take(raw, first, mask, found, out, count):  # type: ignore[no-untyped-def]  # numba infers the types
    below = mask - np.uint64(1)
    at = first + (ones64(~mask & below) & np.uint64(63))
    found[count] = at
    out[count] = raw[at]
    return mask & below, count + np.uint64(1)


@numba.njit(cache=True, nogil=True)
def _reaching(raw, threshold, found, out):  # type: ignore[no-untyped-def]  # numba infers the types
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
        mask, count = _take(raw, first, mask, found, out, count)
        mask, count = _take(raw, first, mask, found, out, count)
        while mask:
            mask, count = _take(raw, first, mask, found, out, count)
        count = after
    for at in range(raw.size // 64 * 64, raw.size):
        if count > room:
            return count
        found[count] = at
        out[count] = raw[at]
        count += np.uint64((raw[at] & FOLD) >= threshold)
    return count


def reaching(raw: Bits, threshold: np.int32, room: int) -> tuple[Ints, Bits]:
    """Indices, increasing, and bits of the floats with bits `raw` whose magnitude has bits of `threshold` or more.

    Of 64 values at a time two are taken unasked, so that where few reach the threshold no branch depends on the data.

    Args:
        raw: Shape (n,), contiguous.
        threshold: 0 or more.
        room: How many are expected at most; more cost a second pass.
    """
    found, out = np.empty(room + 2, np.int64), np.empty(room + 2, np.int32)
    count = _reaching(raw, threshold, found, out)
    return (found[:count], out[:count]) if count <= room else reaching(raw, threshold, raw.size)


@numba.njit(cache=True, nogil=True)
def _keep(candidates, bits, least, ties, found, out):  # type: ignore[no-untyped-def]  # numba infers the types
    count = np.uint64(0)
    for at in range(bits.size):
        found[count] = candidates[at]
        out[count] = bits[at]
        magnitude = bits[at] & FOLD
        tie = (magnitude == least) & (ties > 0)
        ties -= np.int64(tie)
        count += np.uint64((magnitude > least) | tie)


def largest(candidates: Ints, bits: Bits, k: int) -> tuple[Ints, Bits]:
    """The `k` of the `candidates`, which have these `bits`, with the largest magnitudes; first ones on ties.

    Args:
        candidates: Indices, increasing, shape (m,), k or more.
        bits: Shape (m,).
        k: 1 or more.
    """
    magnitudes = bits & FOLD
    least = np.partition(magnitudes, bits.size - k)[bits.size - k]
    ties = k - np.count_nonzero(magnitudes > least)
    found, out = np.empty(bits.size, np.int64), np.empty(bits.size, np.int32)
    _keep(candidates, bits, least, ties, found, out)
    return found[:k], out[:k]
