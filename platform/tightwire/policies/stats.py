"""Magnitude statistics of an update: what a policy knows of the vector that is about to be encoded.

Per tensor, a histogram of |x| over cells taken from the float's own bits (exponent and the first mantissa bits), so
that a cell is at most 1/4 wide relative to its values whatever the update's scale. Each cell keeps the count, the sum
and the sum of squares of its magnitudes, by sign; with these three moments energies are exact, and thresholds far
better than a cell's width. Sums are of integers, the mantissa bits that cells do not tell apart, so that they are the
same in any order.
"""

import math
import threading
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from typing import Any, TypeAlias

import numba
import numpy as np

from tightwire.arrays import Flat, Floats, Ints
from tightwire.wire.schema import Schema

MANTISSA_BITS = 2
"""Mantissa bits that tell cells apart: 4 cells an octave."""
OCTAVES = 16
"""Octaves below a tensor's largest magnitude that are told apart; what is smaller shares one last cell. A
value there has at most 2**-30 of the largest one's energy."""
CELLS = (OCTAVES << MANTISSA_BITS) + 1
"""Cells of one sign of one tensor, the last one included."""

_SHIFT = 23 - MANTISSA_BITS
_KEYS = 256 << MANTISSA_BITS
"""Exponents and first mantissa bits that there are."""
_BLOCK = 256
"""Values that stay in the processor's nearest cache while they are looked at twice."""
_MAGNITUDE = 0x7FFFFFFF
_ONE = 1 << 40
"""A count of one, in a number whose lower bits hold a sum."""
_CHUNK = 1 << (40 - _SHIFT)
"""Values after which such a number must be emptied."""

_UNITS = np.ldexp(1.0, np.arange(256) - 150)
"""What the last mantissa bit is worth, by exponent."""

Histogram: TypeAlias = tuple[Floats, Floats, Floats, Ints, Ints, Ints, Floats, Floats]
"""`low`, `high`, `energy`, `starts`, `cells`, `counts`, `sums` and `squares` of `UpdateStats`."""


def histogram_numpy(update: Flat, bounds: Ints) -> Histogram:
    """The plain twin of `histogram`, the same bit for bit.

    Args:
        update: Finite float32 values, shape (values,).
        bounds: First value of each tensor and the end of the last, shape (tensors + 1,); no tensor is empty.
    """
    low, high, energy, starts = [], [], [], [0]
    parts: list[tuple[Ints, Ints, Floats, Floats]] = []
    for start, end in pairwise(bounds):
        values = update[start:end]
        bits = values.view(np.int32).astype(np.int64)
        keys = (bits & _MAGNITUDE) >> _SHIFT
        below = np.minimum(keys.max() - keys, CELLS - 1)
        cells, place, counts = np.unique(2 * below + (bits < 0), return_inverse=True, return_counts=True)
        rest = (bits & ((1 << _SHIFT) - 1)).astype(object)  # integers of Python do not overflow
        first, second = np.zeros(len(cells), object), np.zeros(len(cells), object)
        np.add.at(first, place, rest)
        np.add.at(second, place, rest * rest)
        sums, squares = np.zeros(len(cells)), np.zeros(len(cells))
        for at, cell in enumerate(cells):
            if cell >> 1 == CELLS - 1:
                small = np.abs(values[place == at]).astype(np.float64)
                sums[at], squares[at] = np.cumsum(small)[-1], np.cumsum(small * small)[-1]
            else:
                key = int(keys.max() - (cell >> 1))
                sums[at], squares[at] = _moments(key, int(counts[at]), int(first[at]), float(second[at]))
        parts.append((cells, counts, sums, squares))
        starts.append(starts[-1] + len(cells))
        energy.append(np.cumsum(squares)[-1])
        low.append(values.min())
        high.append(values.max())
    cells, counts, sums, squares = (np.concatenate(list(column)) for column in zip(*parts, strict=True))
    return (
        np.array(low, np.float64),
        np.array(high, np.float64),
        np.array(energy, np.float64),
        np.array(starts, np.int64),
        cells.astype(np.int64),
        counts.astype(np.int64),
        sums,
        squares,
    )


def _moments_of(key: int, count: int, first: int, second: float) -> tuple[float, float]:
    """Sum and sum of squares of the magnitudes of a cell.

    Args:
        key: Exponent and first mantissa bits that its values share.
        count: Its values.
        first: Sum of their other mantissa bits.
        second: Sum of the squares of these.
    """
    exponent = key >> MANTISSA_BITS
    base = (key & ((1 << MANTISSA_BITS) - 1)) << _SHIFT
    if exponent > 0:
        base += 1 << 23
    unit = _UNITS[max(exponent, 1)]
    total = float(count * base + first)
    return total * unit, (float(base) * (float(count) * float(base) + 2.0 * float(first)) + second) * unit * unit


_moments = numba.njit(cache=True)(_moments_of)


@numba.njit(cache=True, nogil=True)
def _ends(bits):  # type: ignore[no-untyped-def]  # numba infers them
    """Smallest and largest value, by integers alone, which compilers take many at once."""
    above = highest = bits[0]
    unsigned = bits.view(np.uint32)
    below = lowest = unsigned[0]
    for i in range(bits.size):
        above = min(above, bits[i])
        highest = max(highest, bits[i])
    for i in range(bits.size):
        below = min(below, unsigned[i])
        lowest = max(lowest, unsigned[i])
    signs = np.array([below, lowest, np.uint32(above), np.uint32(highest)], np.uint32).view(np.float32)
    return (signs[1] if lowest >> 31 else signs[0]), (signs[3] if highest >= 0 else signs[2])


@numba.njit(cache=True, nogil=True)
def _scatter(words, table):  # type: ignore[no-untyped-def]  # numba infers them
    """Add values to the table of all keys: counts and sums of their other bits in one number, and sums of squares.

    Values go to four lanes in turn, because a processor must wait where it adds to one place twice running.
    """
    mask, shift, one = np.uint32((1 << _SHIFT) - 1), np.uint32(_SHIFT), np.uint64(_ONE)
    lane, square, key = np.uint64(2), np.uint64(1), np.uint64(3)  # of 8 numbers a key
    whole = words.size - words.size % 4
    for i in range(0, whole, 4):
        a, b, c, d = words[i], words[i + 1], words[i + 2], words[i + 3]
        rest, place = np.uint64(a & mask), np.uint64(a >> shift) << key
        table[place] += one + rest
        table[place + square] += rest * rest
        rest, place = np.uint64(b & mask), (np.uint64(b >> shift) << key) + lane
        table[place] += one + rest
        table[place + square] += rest * rest
        rest, place = np.uint64(c & mask), (np.uint64(c >> shift) << key) + lane + lane
        table[place] += one + rest
        table[place + square] += rest * rest
        rest, place = np.uint64(d & mask), (np.uint64(d >> shift) << key) + lane + lane + lane
        table[place] += one + rest
        table[place + square] += rest * rest
    for i in range(whole, words.size):
        rest, place = np.uint64(words[i] & mask), np.uint64(words[i] >> shift) << key
        table[place] += one + rest
        table[place + square] += rest * rest


@numba.njit(cache=True, nogil=True)
def _emptied(table, key, negative):  # type: ignore[no-untyped-def]  # numba infers them
    """Count, sum and sum of squares of a key's values; its place in the table is zero again."""
    own = table[8 * (key + negative * _KEYS) : 8 * (key + negative * _KEYS) + 8]
    packed = np.int64(own[0] + own[2] + own[4] + own[6])
    squares = np.int64(own[1] + own[3] + own[5] + own[7])
    if packed:
        own[:] = 0
    return packed >> 40, packed & (_ONE - 1), squares


@numba.njit(cache=True, nogil=True)
def _any(words, tiny):  # type: ignore[no-untyped-def]  # numba infers them
    """Whether there is a value other than zero whose magnitude, less one, is below `tiny`, all as integers."""
    mask, one = np.uint32(_MAGNITUDE), np.uint32(1)
    found = False
    for i in range(words.size):
        found |= np.uint32((words[i] & mask) - one) < tiny
    return found


@numba.njit(cache=True, nogil=True)
def _histogram(update, bounds, table):  # type: ignore[no-untyped-def]  # numba infers them
    tensors = len(bounds) - 1
    low, high, energy = np.empty(tensors), np.empty(tensors), np.zeros(tensors)
    starts = np.zeros(tensors + 1, np.int64)
    room = 0
    for tensor in range(tensors):
        room += min(2 * CELLS, bounds[tensor + 1] - bounds[tensor])
    cells, counts = np.empty(room, np.int64), np.empty(room, np.int64)
    sums, squares = np.empty(room), np.empty(room)
    number, first, second = np.zeros(2 * CELLS, np.int64), np.zeros(2 * CELLS, np.int64), np.zeros(2 * CELLS)
    at = 0
    for tensor in range(tensors):
        values = update[bounds[tensor] : bounds[tensor + 1]]
        words = values.view(np.uint32)
        low[tensor], high[tensor] = _ends(values.view(np.int32))
        widest = np.array([max(-low[tensor], high[tensor])], np.float32).view(np.uint32)[0]
        top: Any = np.int64(widest & np.uint32(_MAGNITUDE)) >> _SHIFT
        least = max(top - (CELLS - 2), 0)  # smaller keys share a cell
        lowest = least
        tiny = np.uint32(max((least << _SHIFT) - 1, 0))
        used = 2 * (top - least + 1)
        small = np.zeros((2, 2))
        for begin in range(0, values.size, _CHUNK):
            for start in range(begin, min(begin + _CHUNK, values.size), _BLOCK):
                block = words[start : min(start + _BLOCK, begin + _CHUNK)]
                _scatter(block, table)
                if not _any(block, tiny):
                    continue
                for i in range(block.size):
                    if np.uint32((block[i] & np.uint32(_MAGNITUDE)) - np.uint32(1)) < tiny:
                        lowest = min(lowest, np.int64(block[i] & np.uint32(_MAGNITUDE)) >> _SHIFT)
                        magnitude = np.float64(np.abs(values[start + i]))
                        small[0, block[i] >> np.uint32(31)] += magnitude
                        small[1, block[i] >> np.uint32(31)] += magnitude * magnitude
            for cell in range(used):
                count, linear, square = _emptied(table, top - (cell >> 1), cell & 1)
                if count:
                    number[cell] += count
                    first[cell] += linear
                    second[cell] += np.float64(square)
            for negative in range(2):
                for key in range(lowest, least):
                    number[2 * (CELLS - 1) + negative] += _emptied(table, key, negative)[0]
                if least > 0:
                    number[2 * (CELLS - 1) + negative] += _emptied(table, 0, negative)[0]
        for cell in range(2 * CELLS):
            if number[cell] == 0:
                continue
            if cell < used:
                sums[at], squares[at] = _moments(top - (cell >> 1), number[cell], first[cell], second[cell])
            else:
                sums[at], squares[at] = small[0, cell & 1], small[1, cell & 1]
            cells[at], counts[at] = cell, number[cell]
            energy[tensor] += squares[at]
            number[cell] = first[cell] = 0
            second[cell] = 0.0
            at += 1
        starts[tensor + 1] = at
    return low, high, energy, starts, cells[:at], counts[:at], sums[:at], squares[:at]


class _Memory(threading.local):
    """A thread's table of all keys; zero before a histogram and after it, so that none pays for making it."""

    def __init__(self) -> None:
        self.table = np.zeros(2 * _KEYS * 8, np.uint64)


_MEMORY = _Memory()


def histogram(update: Flat, bounds: Ints) -> Histogram:
    """`histogram_numpy`, compiled."""
    found: Histogram = _histogram(update, bounds, _MEMORY.table)
    return found


@dataclass(frozen=True, slots=True, eq=False)
class UpdateStats:
    """Statistics of one flat update, tensor by tensor; see the module.

    The cells of tensor ``t`` are the entries ``starts[t]:starts[t + 1]`` of `cells`, `counts`, `sums` and
    `squares`, in order of falling magnitude; cells that hold nothing are left out.
    """

    schema: Schema
    """The update's tensors, empty ones too."""
    sizes: Ints
    """Values of each tensor that is not empty, shape (tensors,); only these have statistics."""
    low: Floats
    """Smallest value of each tensor, shape (tensors,)."""
    high: Floats
    """Largest value of each tensor, shape (tensors,)."""
    energy: Floats
    """Sum of squares of each tensor, shape (tensors,)."""
    starts: Ints
    """First cell of each tensor and the end of the last, shape (tensors + 1,)."""
    cells: Ints
    """Which cell: 2 * (steps below the tensor's largest magnitude) + (1 where the values are negative)."""
    counts: Ints
    """Values in each cell."""
    sums: Floats
    """Sum of the magnitudes in each cell."""
    squares: Floats
    """Sum of the squares in each cell."""

    @classmethod
    def of(cls, update: Flat, schema: Schema) -> "UpdateStats":
        """The statistics of one update.

        Args:
            update: Finite float32 values, shape (schema.size,): the very vector that will be encoded.
            schema: The tensors whose concatenation the vector is.

        Returns:
            The same statistics, bit for bit, on any machine.

        Raises:
            ValueError: The vector does not have the schema's size.
        """
        if update.shape != (schema.size,):
            raise ValueError(f"an update of this schema has shape ({schema.size},), got {update.shape}")
        sizes, bounds = _bounds(schema)
        return cls(schema, sizes, *histogram(np.ascontiguousarray(update, np.float32), bounds))

    @property
    def size(self) -> int:
        """Values of the whole update."""
        return self.schema.size

    @property
    def norm(self) -> float:
        """Euclidean norm of the whole update."""
        return math.sqrt(sum(self.energy.tolist()))


@lru_cache(maxsize=64)
def _bounds(schema: Schema) -> tuple[Ints, Ints]:
    """Sizes of the tensors that are not empty; the first value of each, and the end of the last."""
    sizes = np.array([tensor.size for tensor in schema.tensors if tensor.size], np.int64)
    return sizes, np.concatenate([np.zeros(1, np.int64), np.cumsum(sizes)])
