"""The hot loops of the sparsifiers, compiled by numba; `tightwire.codecs.sparse_twins` holds the same in pure NumPy."""

import numba
import numpy as np

from tightwire.arrays import Bytes8, Flat, Floats, Ints
from tightwire.codecs.kernels import FOLD, Bits
from tightwire.wire.packing import Codes

_LANES = 32
GOLDEN = np.uint64(0x9E3779B97F4A7C15)
"""What the states of SplitMix64 are apart."""
LARGEST = np.finfo(np.float32).max
"""Of what is finite."""
_BLOCK = 4096
"""Values that are zeroed and then written to while they are in the nearest cache."""


@numba.njit(cache=True, nogil=True)
def _place(indices, values, rest, out):  # type: ignore[no-untyped-def]  # numba infers the types
    at = 0
    for start in range(0, out.size, _BLOCK):
        stop = min(start + _BLOCK, out.size)
        out[start:stop] = rest
        while at < indices.size and indices[at] < stop:
            out[indices[at]] = values[at]
            at += 1


@numba.njit(cache=True, nogil=True)
def _add(indices, values, weight, out):  # type: ignore[no-untyped-def]  # numba infers the types
    for at in range(indices.size):
        out[indices[at]] += values[at] * weight


def place(indices: Ints, values: Flat, out: Flat) -> None:
    """Write zeros to `out`, and `values` to its `indices`, which increase and are within it."""
    _place(indices, values, np.float32(0), out)


def place_codes(indices: Ints, codes: Codes, zero: int, n: int) -> Codes:
    """`n` codes: `codes` at `indices`, which increase and are below n, and `zero` elsewhere."""
    out = np.empty(n, np.uint32)
    _place(indices, codes, np.uint32(zero), out)
    return out


def add(indices: Ints, values: Flat, weight: np.float32, out: Flat) -> None:
    """Add `values` times `weight`, in float32, to `out` at `indices`, which are within it."""
    _add(indices, values, weight, out)


@numba.njit(cache=True, nogil=True)
def _distances(codes, zero, out):  # type: ignore[no-untyped-def]  # numba infers the types
    for i in range(codes.size):
        way = np.int32(np.int32(codes[i]) - zero)
        out[i] = abs(way) | (way & ~FOLD)


def distances(codes: Codes, zero: int) -> Bits:
    """How far each of the codes, all below 2**31, is from the code `zero`; the sign bit is set where it is below."""
    out = codes.view(np.int32)
    _distances(codes, np.int32(zero), out)
    return out


def at_distances(raw: Bits, zero: int) -> Codes:
    """The codes that have these `distances`."""
    ways = raw & FOLD
    codes: Codes = np.where(raw < 0, zero - ways, zero + ways).astype(np.uint32)
    return codes


@numba.njit(cache=True, nogil=True, inline="always")
def mix64(x):  # type: ignore[no-untyped-def]  # numba infers the types
    """The finaliser of SplitMix64: a permutation of 64-bit numbers (Steele et al. 2014)."""
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


@numba.njit(cache=True, nogil=True)
def _draw(n, k, seed, marks):  # type: ignore[no-untyped-def]  # numba infers the types
    half = np.uint64(0xFFFFFFFF)
    state = mix64(seed + GOLDEN)
    count = np.uint64(0)
    while count < k:
        state += GOLDEN
        x = mix64(state)
        at = ((x >> np.uint64(32)) * n + ((x & half) * n >> np.uint64(32))) >> np.uint64(32)
        byte = marks[at >> np.uint64(3)]
        bit = np.uint64(1) << (at & np.uint64(7))
        count += np.uint64((byte & bit) == 0)
        marks[at >> np.uint64(3)] = np.uint8(byte | bit)


def draw(n: int, k: int, seed: int, marks: Bytes8) -> None:
    """Set `k` bits at random of the first `n`, n < 2**32, of `marks`, all clear; see `tightwire.codecs.randk`."""
    _draw(np.uint64(n), np.uint64(k), np.uint64(seed), marks)


@numba.njit(cache=True, nogil=True)
def _scaled(values, factor, out):  # type: ignore[no-untyped-def]  # numba infers the types
    for i in range(values.size):
        out[i] = min(max(values[i] * factor, -LARGEST), LARGEST)


def scaled(values: Flat, factor: np.float32) -> Flat:
    """`values` times `factor` in float32, cut to what is finite."""
    out = np.empty_like(values)
    _scaled(values, factor, out)
    return out


@numba.njit(cache=True, nogil=True, inline="always")
def folded(lanes):  # type: ignore[no-untyped-def]  # numba infers the types
    """The sum of the lanes, a power of two: the upper half is added to the lower until one is left."""
    half = lanes.size >> 1
    while half:
        for lane in range(half):
            lanes[lane] += lanes[half + lane]
        half >>= 1
    return lanes[0]


@numba.njit(cache=True, nogil=True)
def _sum_magnitudes(values):  # type: ignore[no-untyped-def]  # numba infers the types
    lanes = np.zeros(_LANES)
    whole = values.size // _LANES * _LANES
    for start in range(0, whole, _LANES):
        part = values[start : start + _LANES]
        for lane in range(_LANES):
            lanes[lane] += np.float64(abs(part[lane]))
    for i in range(whole, values.size):
        lanes[i - whole] += np.float64(abs(values[i]))
    return folded(lanes)


def mean_magnitude(values: Flat) -> float:
    """Mean of the magnitudes, in float64: value i goes to sum i % 32, and those are `folded`."""
    return float(_sum_magnitudes(values)) / values.size


@numba.njit(cache=True, nogil=True)
def _energies(values, length, out):  # type: ignore[no-untyped-def]  # numba infers the types
    lanes = np.empty(_LANES)
    for group in range(out.size):
        part = values[group * length : min((group + 1) * length, values.size)]
        lanes[:] = 0.0
        whole = part.size // _LANES * _LANES
        for start in range(0, whole, _LANES):
            for lane in range(_LANES):
                lanes[lane] += np.float64(part[start + lane]) * np.float64(part[start + lane])
        for i in range(whole, part.size):
            lanes[i - whole] += np.float64(part[i]) * np.float64(part[i])
        out[group] = folded(lanes)


def energies(values: Flat, length: int) -> Floats:
    """Squared norms of runs of `length` values, the last of which may be shorter; summed as `mean_magnitude`."""
    out = np.empty(-(-values.size // length))
    _energies(values, length, out)
    return out


@numba.njit(cache=True, nogil=True)
def _take_groups(chosen, length, values, out):  # type: ignore[no-untyped-def]  # numba infers the types
    for at in range(chosen.size):
        start = chosen[at] * length
        part = values[start : min(start + length, values.size)]
        out[at * length : at * length + part.size] = part


@numba.njit(cache=True, nogil=True)
def _place_groups(chosen, length, values, out):  # type: ignore[no-untyped-def]  # numba infers the types
    at = 0
    for group in range((out.size + length - 1) // length):
        part = out[group * length : min((group + 1) * length, out.size)]
        if at < chosen.size and chosen[at] == group:
            part[:] = values[at * length : at * length + part.size]
            at += 1
        else:
            part[:] = np.float32(0)


@numba.njit(cache=True, nogil=True)
def _add_groups(chosen, length, values, weight, out):  # type: ignore[no-untyped-def]  # numba infers the types
    for at in range(chosen.size):
        start = chosen[at] * length
        part = out[start : min(start + length, out.size)]
        for i in range(part.size):
            part[i] += values[at * length + i] * weight


def take_groups(chosen: Ints, length: int, values: Flat, out: Flat) -> None:
    """Copy the `chosen` runs of `length` values, the last of which may be shorter, to `out`, which they fill."""
    _take_groups(chosen, length, values, out)


def place_groups(chosen: Ints, length: int, values: Flat, out: Flat) -> None:
    """The inverse of `take_groups`; the other runs of `out` become zeros."""
    _place_groups(chosen, length, values, out)


def add_groups(chosen: Ints, length: int, values: Flat, weight: np.float32, out: Flat) -> None:
    """Add `values` times `weight`, in float32, to the runs they were taken from."""
    _add_groups(chosen, length, values, weight, out)
