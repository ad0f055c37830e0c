"""What a quantiser's scales are made from: sums of each group of values, and its extremes.

Sums decide bytes, so they are taken in one fixed order: a group is cut into blocks of 8192 values; value i of a block
is added to the float64 lane i % 32; the lanes of a block are added up by halves (lane j and j + 16, then j and j + 8,
down to one); and the blocks are added in order. Squares and differences are taken in float64, where squares of float32
are exact and cannot overflow. Any machine with float64 can follow it in parallel, 32 lanes a block.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass

import numba
import numpy as np

from tightwire.arrays import AnyArray, Flat, Floats
from tightwire.codecs.affine_kernels import shifted
from tightwire.codecs.groups import group_count
from tightwire.codecs.kernels import peaks
from tightwire.codecs.stage import Plane

BLOCK = 8192
LANES = 32


@numba.njit(cache=True, nogil=True, inline="always")
def _fold(lanes):  # type: ignore[no-untyped-def]  # numba infers the types
    width = LANES // 2
    while width:
        for lane in range(width):
            lanes[lane] += lanes[lane + width]
        width //= 2
    return lanes[0]


@numba.njit(cache=True, nogil=True)
def _spread(values, length, shifted, out):  # type: ignore[no-untyped-def]  # numba infers the types
    ones, twos = np.empty(LANES), np.empty(LANES)
    for group in range(out.shape[0]):
        begin, end = group * length, min((group + 1) * length, values.size)
        shift = np.float64(values[begin]) if shifted else 0.0
        out[group] = 0
        for start in range(begin, end, BLOCK):
            part = values[start : min(start + BLOCK, end)]
            ones[:] = 0
            twos[:] = 0
            whole = part.size // LANES * LANES
            for at in range(0, whole, LANES):
                row = part[at : at + LANES]
                for lane in range(LANES):
                    x = np.float64(row[lane]) - shift
                    ones[lane] += x
                    twos[lane] += x * x
            for lane in range(part.size - whole):
                x = np.float64(part[whole + lane]) - shift
                ones[lane] += x
                twos[lane] += x * x
            out[group, 0] += _fold(ones)
            out[group, 1] += _fold(twos)


def norms(values: Flat, length: int) -> Floats:
    """Euclidean norm of each group of `length` values, shape (groups,)."""
    out = np.empty((group_count(values.size, length), 2))
    _spread(values, length, False, out)
    return np.sqrt(out[:, 1])


def deviations(values: Flat, length: int) -> Floats:
    """Standard deviation (over n, not n - 1) of each group of `length` values, shape (groups,).

    Differences are taken from a group's first value, so that equal values deviate by exactly 0.
    """
    groups = group_count(values.size, length)
    out = np.empty((groups, 2))
    _spread(values, length, True, out)
    return deviations_of(out[:, 0], out[:, 1], group_sizes(values.size, length))


def deviations_of(ones: Floats, twos: Floats, sizes: Floats) -> Floats:
    """Standard deviations from the sums and the sums of squares of differences, all of shape (groups,)."""
    return np.sqrt(np.maximum(twos - ones**2 / sizes, 0) / sizes)


@numba.njit(cache=True, nogil=True)
def _halves(values, length, out):  # type: ignore[no-untyped-def]  # numba infers the types
    below, above = np.empty(LANES), np.empty(LANES)
    for group in range(out.shape[0]):
        begin, end = group * length, min((group + 1) * length, values.size)
        out[group] = 0
        for start in range(begin, end, BLOCK):
            part = values[start : min(start + BLOCK, end)]
            below[:] = 0
            above[:] = 0
            negative = np.int32(0)
            whole = part.size // LANES * LANES
            for at in range(0, whole, LANES):
                row = part[at : at + LANES]
                for lane in range(LANES):
                    x = np.float64(row[lane])
                    below[lane] += x if x < 0 else 0.0
                    above[lane] += 0.0 if x < 0 else x
            for lane in range(part.size - whole):
                x = np.float64(part[whole + lane])
                below[lane] += x if x < 0 else 0.0
                above[lane] += 0.0 if x < 0 else x
            for i in range(part.size):
                negative += np.int32(part[i] < 0)
            out[group, 0] += _fold(below)
            out[group, 1] += _fold(above)
            out[group, 2] += negative


def halves(values: Flat, length: int) -> Floats:
    """Sum of the negative values, sum of the others, and number of the negative ones, of each group: (groups, 3)."""
    out = np.empty((group_count(values.size, length), 3))
    _halves(values, length, out)
    return out


@numba.njit(cache=True, nogil=True)
def _moments(values, length, low, inverse, half, least, most, out):  # type: ignore[no-untyped-def]  # numba infers the types
    sums = np.empty((4, LANES))
    xs, ks, products, squares = sums[0], sums[1], sums[2], sums[3]
    for group in range(out.shape[0]):
        begin, end = group * length, min((group + 1) * length, values.size)
        bottom, scale = low[group], inverse[group]
        shift = np.float64(bottom)
        out[group] = 0
        for start in range(begin, end, BLOCK):
            part = values[start : min(start + BLOCK, end)]
            sums[:] = 0
            for at in range(0, part.size, LANES):
                row = part[at : at + LANES]
                for lane in range(row.size):
                    k = np.float64(np.int32(shifted(row[lane], bottom, scale, least, most, half, np.int32(0))))
                    x = np.float64(row[lane]) - shift
                    xs[lane] += x
                    ks[lane] += k
                    products[lane] += x * k
                    squares[lane] += k * k
            for moment in range(4):
                out[group, moment] += _fold(sums[moment])


def moments(values: Flat, length: int, low: AnyArray, inverse: AnyArray, least: int, most: int) -> Floats:
    """Sums of x, k, x k and k**2 over each group of `length` values, shape (groups, 4).

    A value less its group's `low` is x; its code k is the nearest integer to x * inverse, halves up, from `least` to
    `most`, computed as by `tightwire.codecs.affine.quantise`.

    Args:
        values: Shape (n,), n > 0, contiguous, finite.
        length: More than 0.
        low: Shape (groups,), float32 or float64.
        inverse: Likewise.
        least: The smallest code.
        most: The largest.
    """
    out = np.empty((group_count(values.size, length), 4))
    real = low.dtype.type
    _moments(values, length, low, inverse, real(0.5), real(least), real(most), out)
    return out


def group_sizes(n: int, length: int) -> Floats:
    """Values in each group, shape (groups,)."""
    sizes = np.full(group_count(n, length), float(length))
    sizes[-1] = n - (sizes.size - 1) * length
    return sizes


@dataclass(frozen=True)
class Groups(ABC):
    """Values in groups of `length`, wherever they lie, as quantisers look at them for their scales."""

    count: int
    """Of the values."""
    length: int

    @property
    def sizes(self) -> Floats:
        """Values in each group, shape (groups,)."""
        return group_sizes(self.count, self.length)

    @abstractmethod
    def extremes(self) -> Flat:
        """Smallest and largest of each group, shape (groups, 2)."""

    @abstractmethod
    def norms(self) -> Floats:
        """As the function of that name."""

    @abstractmethod
    def deviations(self) -> Floats:
        """As the function of that name."""

    @abstractmethod
    def halves(self) -> Floats:
        """As the function of that name."""

    @abstractmethod
    def moments(self, low: AnyArray, inverse: AnyArray, least: int, most: int) -> Floats:
        """As the function of that name."""

    def peaks(self) -> Flat:
        """The largest magnitude of each group, shape (groups,)."""
        return peaks(self.extremes())


@dataclass(frozen=True)
class PlaneGroups(Groups):
    """Groups of a plane of reals."""

    plane: Plane

    def extremes(self) -> Flat:
        """As `Plane.group_extremes`."""
        return self.plane.group_extremes(self.length)

    def norms(self) -> Floats:
        """As the function of that name."""
        return norms(self.plane.data, self.length)

    def deviations(self) -> Floats:
        """As the function of that name."""
        return deviations(self.plane.data, self.length)

    def halves(self) -> Floats:
        """As the function of that name."""
        return halves(self.plane.data, self.length)

    def moments(self, low: AnyArray, inverse: AnyArray, least: int, most: int) -> Floats:
        """As the function of that name."""
        return moments(self.plane.data, self.length, low, inverse, least, most)
