"""The hot loops of the codecs, compiled by numba; `tightwire.codecs.twins` holds the same in pure NumPy, equal in bits.

No loop is compiled with fast-math, so nothing is contracted or reordered and the bits are the same on every machine.
"""

import numba
import numpy as np
import numpy.typing as npt

from tightwire.arrays import Flat, Ints
from tightwire.wire.packing import LANES, ROWS, get_row, get_tail, put_row, put_tail
from tightwire.wire.words import add32, mul32, shr32, xor32

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
def noise(index, k0, k1):  # type: ignore[no-untyped-def]  # numba infers the types
    """A uniform integer in [0, 2**24) for value `index`: two rounds of a keyed 32-bit mix.

    The mix is Wellons' "Prospecting for hash functions", k1 entering between the rounds.
    """
    x = xor32(mul32(index, np.uint32(0x9E3779B9)), k0)
    x = xor32(mul32(xor32(x, shr32(x, np.uint32(16))), np.uint32(0x21F0AAAD)), k1)
    x = mul32(xor32(x, shr32(x, np.uint32(15))), np.uint32(0x735A2D97))
    return np.int32(shr32(xor32(x, shr32(x, np.uint32(15))), np.uint32(8)))


@numba.njit(cache=True, nogil=True, inline="always")
def _stochastic(value, index, low, inverse, unit, top, k0, k1):  # type: ignore[no-untyped-def]  # numba infers the types
    x = (value - low) * inverse
    code = np.int32(x)
    above = np.int32(np.float32(noise(index, k0, k1)) * unit < x - np.float32(code))
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
            start = first * ROWS + row * lanes
            part = values[start : start + lanes]
            index = np.uint32(start)
            for lane in range(lanes):
                codes[lane] = _stochastic(part[lane], add32(index, np.uint32(lane)), low, inverse, unit, top, k0, k1)
            put_row(codes, words, first * bits, row, lanes, bits)
    start = columns * ROWS
    for at in range(values.size - start):
        index = np.uint32(start + at)
        put_tail(tail, at, _stochastic(values[start + at], index, low, inverse, unit, top, k0, k1), bits)


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


@numba.njit(cache=True, nogil=True)
def dequantise(words, tail, bits, low, step, out):  # type: ignore[no-untyped-def]  # numba infers the types
    """Write low + code * step for every packed code to `out`."""
    codes = np.empty(LANES, np.uint32)
    columns = out.size // ROWS
    for first in range(0, columns, LANES):
        lanes = min(LANES, columns - first)
        for row in range(ROWS):
            get_row(words, first * bits, row, lanes, bits, codes)
            start = first * ROWS + row * lanes
            part = out[start : start + lanes]
            for lane in range(lanes):
                part[lane] = low + np.float32(np.int32(codes[lane])) * step
    start = columns * ROWS
    for at in range(out.size - start):
        out[start + at] = low + np.float32(np.int32(get_tail(tail, at, bits))) * step


@numba.njit(cache=True, nogil=True)
def _reaching(raw, threshold, out):  # type: ignore[no-untyped-def]  # numba infers the types
    count = np.uint64(0)
    for i in range(raw.size):
        out[count] = i
        count += np.uint64((raw[i] & FOLD) >= threshold)
    return count


def reaching(raw: npt.NDArray[np.int32], threshold: np.int32) -> Ints:
    """Indices, increasing, of the floats with bits `raw` whose magnitude has bits of `threshold` or more."""
    out = np.empty(raw.size, np.int64)
    return out[: _reaching(raw, threshold, out)]


@numba.njit(cache=True, nogil=True)
def _kth(magnitudes, k):  # type: ignore[no-untyped-def]  # numba infers the types
    """(the k-th largest, how many are larger), by a radix select of 11, 10 and 10 bits."""
    prefix = np.int64(0)
    larger = 0
    for shift, width in ((20, 11), (10, 10), (0, 10)):
        counts = np.zeros(1 << width, np.int64)
        for magnitude in magnitudes:
            if magnitude >> (shift + width) == prefix:
                counts[(magnitude >> shift) & ((1 << width) - 1)] += 1
        digit = (1 << width) - 1
        while larger + counts[digit] < k:
            larger += counts[digit]
            digit -= 1
        prefix = (prefix << width) | digit
    return prefix, larger


@numba.njit(cache=True, nogil=True)
def _largest(raw, candidates, out):  # type: ignore[no-untyped-def]  # numba infers the types
    magnitudes = np.empty(candidates.size, np.int32)
    for j in range(candidates.size):
        magnitudes[j] = raw[candidates[j]] & FOLD
    kth, larger = _kth(magnitudes, out.size)
    ties = out.size - larger
    count = 0
    for j in range(candidates.size):
        if magnitudes[j] > kth:
            out[count] = candidates[j]
            count += 1
        elif magnitudes[j] == kth and ties > 0:
            out[count] = candidates[j]
            count += 1
            ties -= 1


def largest(raw: npt.NDArray[np.int32], candidates: Ints, k: int) -> Ints:
    """The `k` of the `candidates` (indices, increasing, k or more) with the largest magnitudes; first ones on ties."""
    out = np.empty(k, np.int64)
    _largest(raw, candidates, out)
    return out
