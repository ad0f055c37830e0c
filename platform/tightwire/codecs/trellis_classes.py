"""Classes of values: those of about the same expected magnitude, whose codes are alike and share their statistics.

The update of a weight matrix is a sum of outer products, so the scale of a value is about that of its row times that of
its column. Every row and every column has a level from 0 to 15, in half octaves of its root mean square; the level of a
value is their sum. Where values lie as in no matrix, every run of 256 has a level. A class is a stretch of levels:
neighbours are told apart only where that saves more bits than it costs, and where nothing is saved there is one class.
"""

from dataclasses import dataclass
from typing import Literal

import numba
import numpy as np

from tightwire.arrays import Bytes8, Flat, Floats, Ints
from tightwire.codecs import sums
from tightwire.codecs.groups import group_count
from tightwire.codecs.stage import Layout
from tightwire.codecs.trellis_kernels import log2
from tightwire.errors import FrameError
from tightwire.wire.packing import pack, packed_length, unpack
from tightwire.wire.streams import Sink, Source

Form = Literal["one", "matrix", "runs"]
FORMS: tuple[Form, ...] = ("one", "matrix", "runs")
LEVEL_BITS = 4
TOP = 15
"""The level of the row, or column, with the largest root mean square."""
LEVELS = 2 * TOP + 1
"""Levels of values."""
RUN = 256
_TABLE_BITS = 8.0
"""What an entropy coder's table takes for a code, and twice that for itself."""


@numba.njit(cache=True, nogil=True)
def column_squares(values, columns):  # type: ignore[no-untyped-def]  # numba infers the types
    """Add the squares of each column, from the first row to the last, to `columns`, float64."""
    for start in range(0, values.size, columns.size):
        row = values[start : start + columns.size]
        for at in range(columns.size):
            columns[at] += np.float64(row[at]) * np.float64(row[at])


@numba.njit(cache=True, nogil=True)
def levels_of(spread):  # type: ignore[no-untyped-def]  # numba infers the types
    """Levels of rows, or columns, by their root mean squares, shape (m,)."""
    largest, out = spread.max(), np.zeros(spread.size, np.uint8)
    for at in range(spread.size):
        if spread[at] > 0:
            out[at] = np.uint8(max(0.0, TOP + np.floor(2 * log2(spread[at] / largest) + 0.5)))
    return out


@numba.njit(cache=True, nogil=True)
def histogram(grid, rows, columns, seen, counts):  # type: ignore[no-untyped-def]  # numba infers the types
    """Count the codes of `seen` values at even distances, rounded by quantiser 0, by the level of the value."""
    for at in range(seen):
        index = np.int64(at) * grid.size // seen
        row, column = index // columns.size, index % columns.size
        counts[rows[row] + columns[column], np.int64(abs(grid[index]) * np.float32(0.5) + np.float32(0.5))] += 1


@numba.njit(cache=True, nogil=True)
def _cost(counts, weight):  # type: ignore[no-untyped-def]  # numba infers the types
    """Bits of codes with these counts, each count `weight` times, and of a table for either quantiser."""
    total, bits, present = np.int64(0), 0.0, 0
    for count in counts:
        if count:
            total += count
            bits -= count * log2(np.float64(count))
            present += 1
    return weight * (bits + total * log2(np.float64(total))) + 2 * _TABLE_BITS * (present + 2) if total else 0.0


@numba.njit(cache=True, nogil=True)
def merge(counts, weight, table):  # type: ignore[no-untyped-def]  # numba infers the types
    """Merge neighbouring levels for as long as that saves bits, those first that save the most.

    Args:
        counts: Shape (levels, codes), int64: of a sample. Is overwritten.
        weight: Values for each one of the sample.
        table: Shape (levels,), uint8: takes the class of every level.

    Returns:
        Bits of all codes and their tables.
    """
    size = counts.shape[0]
    following, costs, pairs = np.arange(1, size + 1), np.empty(size), np.empty(size)
    for level in range(size):
        costs[level] = _cost(counts[level], weight)
    for level in range(size - 1):
        pairs[level] = _cost(counts[level] + counts[level + 1], weight)
    while True:
        best, before, found, last = 0.0, -1, -1, -1
        level = 0
        while following[level] < size:
            saved = costs[level] + costs[following[level]] - pairs[level]
            if saved >= best:
                best, found, before = saved, level, last
            last, level = level, following[level]
        if found < 0:
            break
        other = following[found]
        counts[found] += counts[other]
        costs[found], following[found] = pairs[found], following[other]
        if following[found] < size:
            pairs[found] = _cost(counts[found] + counts[following[found]], weight)
        if before >= 0:
            pairs[before] = _cost(counts[before] + counts[found], weight)
    bits, level, number = 0.0, 0, 0
    while level < size:
        bits += costs[level]
        table[level : following[level]] = number
        level, number = following[level], number + 1
    return bits


@numba.njit(cache=True, nogil=True)
def spread_out(rows, columns, table, out):  # type: ignore[no-untyped-def]  # numba infers the types
    """The class of every value."""
    for row in range(rows.size):
        own = table[rows[row] :]
        here = out[row * columns.size : (row + 1) * columns.size]
        for at in range(here.size):
            here[at] = own[columns[at]]


@dataclass(frozen=True)
class Classes:
    """How values divide into classes."""

    form: Form
    rows: Bytes8
    """Levels of rows, or runs; zeros for one class."""
    columns: Bytes8
    """Levels of columns; RUN zeros where there are none."""
    table: Bytes8
    """The class of every level, shape (LEVELS,): from 0, never falling, by steps of 1."""

    @classmethod
    def one(cls, n: int) -> "Classes":
        """All `n` values in one."""
        return cls("one", np.zeros(group_count(n, RUN), np.uint8), np.zeros(RUN, np.uint8), np.zeros(LEVELS, np.uint8))

    @property
    def count(self) -> int:
        """How many there are."""
        return int(self.table[-1]) + 1

    def of(self, n: int) -> Bytes8:
        """The class of each of `n` values."""
        out = np.zeros(n, np.uint8)
        if self.form != "one":
            spread_out(self.rows, self.columns, self.table, out)
        return out

    def sizes(self, n: int) -> Ints:
        """How many of `n` values each class has."""
        if self.form == "matrix":
            levels = np.convolve(np.bincount(self.rows), np.bincount(self.columns))
        else:
            levels = RUN * np.bincount(self.rows)
            levels[self.rows[-1]] -= RUN * self.rows.size - n
        found = np.zeros(self.count, np.int64)
        np.add.at(found, self.table[: levels.size], levels)
        return found

    def write(self, sink: Sink) -> None:
        """A byte for the form; unless that is ``one``, a bit for each step of the table, and the levels."""
        sink.write("scales", bytes([FORMS.index(self.form)]))
        if self.form != "one":
            sink.write("scales", np.packbits(np.diff(self.table)).tobytes())
            sink.write("scales", pack(self.rows.astype(np.uint32), LEVEL_BITS))
        if self.form == "matrix":
            sink.write("scales", pack(self.columns.astype(np.uint32), LEVEL_BITS))


def read(layout: Layout, source: Source) -> Classes:
    """The inverse of `Classes.write`, for values of that layout.

    Raises:
        FrameError: ``scales`` for a form that such values cannot have, or ``truncated``.
    """
    kind, n = source.byte(), layout.count
    if kind >= len(FORMS) or (FORMS[kind] == "matrix" and layout.rows == 1):
        raise FrameError("scales", f"values of shape {layout.shape} have no classes of form {kind}")
    if FORMS[kind] == "one":
        return Classes.one(n)
    steps = np.unpackbits(source.array(packed_length(LEVELS - 1, 1)))
    if steps[LEVELS - 1 :].any():
        raise FrameError("scales", "bits are set behind the table of classes")
    table = np.concatenate([[0], np.cumsum(steps[: LEVELS - 1])]).astype(np.uint8)
    if FORMS[kind] == "runs":
        return Classes("runs", _levels(group_count(n, RUN), source), np.zeros(RUN, np.uint8), table)
    return Classes("matrix", _levels(layout.rows, source), _levels(n // layout.rows, source), table)


def _levels(count: int, source: Source) -> Bytes8:
    return unpack(source.array(packed_length(count, LEVEL_BITS)), count, LEVEL_BITS).astype(np.uint8)


def choose(grid: Flat, layout: Layout, largest: int, sample: int) -> Classes:
    """The classes with which codes of `grid` take the fewest bits, as a sample of at most `sample` values tells.

    Args:
        grid: In steps, shape (n,).
        layout: Of the values.
        largest: Magnitude of no code is larger.
        sample: 1 or more.
    """
    n, seen = grid.size, min(grid.size, sample)
    best, fewest = Classes.one(n), np.inf
    for form in FORMS:
        rows, columns = _scales(grid, layout, form)
        if rows.size == 0:
            continue
        counts, table = np.zeros((LEVELS, largest + 1), np.int64), np.zeros(LEVELS, np.uint8)
        histogram(grid, rows, columns, seen, counts)
        bits = merge(counts, n / seen, table)
        if form != "one":
            bits += LEVELS + LEVEL_BITS * (rows.size + (columns.size if form == "matrix" else 0))
        if bits < fewest:
            best, fewest = Classes(form, rows, columns, table), bits
    return best


def _scales(grid: Flat, layout: Layout, form: Form) -> tuple[Bytes8, Bytes8]:
    """Levels of rows and columns; of no rows where the form does not suit."""
    n, none = grid.size, np.empty(0, np.uint8)
    if form == "one":
        return Classes.one(n).rows, Classes.one(n).columns
    if form == "runs":
        spread: Floats = sums.norms(grid, RUN) / np.sqrt(sums.group_sizes(n, RUN))
        return (levels_of(spread) if n > RUN else none), np.zeros(RUN, np.uint8)
    if layout.rows == 1 or n == layout.rows:
        return none, none
    squares: Floats = np.zeros(n // layout.rows)
    column_squares(grid, squares)
    return levels_of(sums.norms(grid, squares.size)), levels_of(np.sqrt(squares))
