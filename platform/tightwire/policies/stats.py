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
_BLOCK = 1024
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
        marks, place, numbers = np.unique(2 * (keys.max() - keys) + (bits < 0), return_inverse=True, return_counts=True)
        rest = (bits & ((1 << _SHIFT) - 1)).astype(object)  # integers of Python do not overflow
        first, second = np.zeros(len(marks), object), np.zeros(len(marks), object)
        np.add.at(first, place, rest)
        np.add.at(second, place, rest * rest)
        cells, cell = np.unique(np.where(marks >> 1 < CELLS, marks, 2 * (CELLS - 1) + (marks & 1)), return_inverse=True)
        counts, sums, squares = np.zeros(len(cells), np.int64), np.zeros(len(cells)), np.zeros(len(cells))
        for mark, at, *moments in zip(marks.tolist(), cell, numbers.tolist(), first, second, strict=True):
            linear, square = _moments(int(keys.max()) - (mark >> 1), moments[0], int(moments[1]), float(moments[2]))
            counts[at] += moments[0]
            sums[at] += linear
            squares[at] += square
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
def _scatter(words, table):  # type: ignore[no-untyped-def]  # numba infers them
    """Add values to the table of all keys: counts and sums of their other bits in one number, and sums of squares.

    Values go to four lanes in turn, because a processor must wait where it adds to one place twice running.
    """
    mask, shift, eight = np.uint32((1 << _SHIFT) - 1), np.uint32(_SHIFT - 3), ~np.uint32(7)
    one, square, two, four, six = np.uint64(_ONE), np.uint64(1), np.uint64(2), np.uint64(4), np.uint64(6)
    whole = words.size - words.size % 4
    for i in range(0, whole, 4):
        a, b, c, d = words[i], words[i + 1], words[i + 2], words[i + 3]
        at, to = np.uint64((a >> shift) & eight), np.uint64((b >> shift) & eight) + two
        then, last = np.uint64((c >> shift) & eight) + four, np.uint64((d >> shift) & eight) + six
        e, f, g, h = np.uint64(a & mask), np.uint64(b & mask), np.uint64(c & mask), np.uint64(d & mask)
        table[at] += one + e
        table[at + square] += e * e
        table[to] += one + f
        table[to + square] += f * f
        table[then] += one + g
        table[then + square] += g * g
        table[last] += one + h
        table[last + square] += h * h
    for i in range(whole, words.size):
        at, e = np.uint64((words[i] >> shift) & eight), np.uint64(words[i] & mask)
        table[at] += one + e
        table[at + square] += e * e


@numba.njit(cache=True, nogil=True)
def _scan(words, table):  # type: ignore[no-untyped-def]  # numba infers them
    """Add values to the table, block by block, so that memory is read once.

    Returns:
        The largest word as a signed integer and as an unsigned one, and the smallest magnitude other than zero, less
        one, as an integer.
    """
    mask, one = np.uint32(_MAGNITUDE), np.uint32(1)
    highest, farthest, least = words.view(np.int32)[0], words[0], ~np.uint32(0)
    for start in range(0, words.size, _BLOCK):
        block = words[start : start + _BLOCK]
        signed = block.view(np.int32)
        for i in range(block.size):
            highest = max(highest, signed[i])
            farthest = max(farthest, block[i])
            least = min(least, np.uint32((block[i] & mask) - one))
        _scatter(block, table)
    return highest, farthest, least


@numba.njit(cache=True, nogil=True)
def _emptied(table, key):  # type: ignore[no-untyped-def]  # numba infers them
    """Count, sum and sum of squares of a key and a sign; their place in the table is zero again."""
    at = 8 * key
    packed = np.int64(table[at] + table[at + 2] + table[at + 4] + table[at + 6])
    if packed == 0:
        return 0, 0, 0.0
    squares = np.int64(table[at + 1] + table[at + 3] + table[at + 5] + table[at + 7])
    for i in range(at, at + 8):
        table[i] = 0
    return packed >> 40, packed & (_ONE - 1), np.float64(squares)


@numba.njit(cache=True, nogil=True)
def _taken(table, number, first, second, key):  # type: ignore[no-untyped-def]  # numba infers them
    """As `_emptied`, with what the table was emptied of before, if that was kept."""
    count, linear, square = _emptied(table, key)
    if number.size:
        count, linear, square = count + number[key], linear + first[key], second[key] + square
        number[key] = first[key] = 0
        second[key] = 0.0
    return count, linear, square


@numba.njit(cache=True, nogil=True)
def _histogram(update, bounds, table):  # type: ignore[no-untyped-def]  # numba infers them
    tensors = len(bounds) - 1
    low, high, energy = np.empty(tensors), np.empty(tensors), np.zeros(tensors)
    starts = np.zeros(tensors + 1, np.int64)
    room = longest = 0
    for tensor in range(tensors):
        room += min(2 * CELLS, bounds[tensor + 1] - bounds[tensor])
        longest = max(longest, bounds[tensor + 1] - bounds[tensor])
    cells, counts = np.empty(room, np.int64), np.empty(room, np.int64)
    sums, squares = np.empty(room), np.empty(room)
    before = 2 * _KEYS if longest > _CHUNK else 0  # for what the table is emptied of before all is seen
    number, first, second = np.zeros(before, np.int64), np.zeros(before, np.int64), np.zeros(before)
    ends = np.empty(2, np.uint32)
    at = 0
    for tensor in range(tensors):
        words = update[bounds[tensor] : bounds[tensor + 1]].view(np.uint32)
        highest, farthest, nearest = _scan(words[:_CHUNK], table)
        for begin in range(_CHUNK, words.size, _CHUNK):
            for own in range(2 * _KEYS):
                count, linear, square = _emptied(table, own)
                number[own] += count
                first[own] += linear
                second[own] += square
            high_word, far_word, near_word = _scan(words[begin : begin + _CHUNK], table)
            highest, farthest, nearest = max(highest, high_word), max(farthest, far_word), min(nearest, near_word)
        ends[0] = farthest if farthest >> 31 else words.min()
        ends[1] = highest if highest >= 0 else words.min()
        top: Any = np.int64(max(ends[0] & np.uint32(_MAGNITUDE), ends[1] & np.uint32(_MAGNITUDE))) >> _SHIFT
        if top >> MANTISSA_BITS == 255:
            table[:] = 0
            raise ValueError("an update must be finite, got one that holds infinity or NaN")
        low[tensor], high[tensor] = ends.view(np.float32)
        lowest = max((np.int64(nearest) + 1) >> _SHIFT, 1)  # smaller keys hold nothing, but for that of zero
        least = max(top - (CELLS - 2), 0)  # smaller keys share a cell
        for key in range(top, (max(least, lowest) if least else 0) - 1, -1):
            for negative in range(2):
                count, linear, square = _taken(table, number, first, second, key + negative * _KEYS)
                if count:
                    cells[at], counts[at] = 2 * (top - key) + negative, count
                    sums[at], squares[at] = _moments(key, count, linear, square)
                    at += 1
        for negative in range(2 * (least > 0)):
            counts_at = 0
            total = total_square = 0.0
            for step in range(max(least - lowest, 0) + 1):
                key = least - 1 - step if least - 1 - step >= lowest else 0
                count, linear, square = _taken(table, number, first, second, key + negative * _KEYS)
                if count:
                    linear_sum, square_sum = _moments(key, count, linear, square)
                    counts_at += count
                    total += linear_sum
                    total_square += square_sum
            if counts_at:
                cells[at], counts[at] = 2 * (CELLS - 1) + negative, counts_at
                sums[at], squares[at] = total, total_square
                at += 1
        for cell in range(starts[tensor], at):
            energy[tensor] += squares[cell]
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
    tag: int = 0
    """Bytes of authentication behind the frame that carries the update."""

    @classmethod
    def of(cls, update: Flat, schema: Schema, tag: int = 0) -> "UpdateStats":
        """The statistics of one update.

        Args:
            update: Finite float32 values, shape (schema.size,): the very vector that will be encoded.
            schema: The tensors whose concatenation the vector is.
            tag: Bytes of authentication behind its frame.

        Returns:
            The same statistics, bit for bit, on any machine.

        Raises:
            ValueError: The vector does not have the schema's size, or is not finite.
        """
        if update.shape != (schema.size,):
            raise ValueError(f"an update of this schema has shape ({schema.size},), got {update.shape}")
        sizes, bounds = _bounds(schema)
        return cls(schema, sizes, *histogram(np.ascontiguousarray(update, np.float32), bounds), tag)

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
