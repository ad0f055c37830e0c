"""Magnitude statistics of an update: what a policy knows of the vector that is about to be encoded.

Per tensor, a histogram of |x| over cells taken from the float's own bits (exponent and the first mantissa
bits), so that a cell is at most 1/16 wide relative to its values whatever the update's scale. Each cell keeps
the count, the sum and the sum of squares of its magnitudes, by sign; with these three moments energies are
exact, and thresholds far better than a cell's width.
"""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import TypeAlias

import numba
import numpy as np

from tightwire.arrays import Flat, Floats, Ints
from tightwire.wire.schema import Schema

MANTISSA_BITS = 4
"""Mantissa bits that tell cells apart: 16 cells an octave."""
OCTAVES = 24
"""Octaves below a tensor's largest magnitude that are told apart; what is smaller shares one last cell. A
value there has at most 2**-46 of the largest one's energy."""
CELLS = (OCTAVES << MANTISSA_BITS) + 1
"""Cells of one sign of one tensor, the last one included."""

_SHIFT = 23 - MANTISSA_BITS
_MAGNITUDE = 0x7FFFFFFF

Histogram: TypeAlias = tuple[Floats, Floats, Ints, Floats, Floats]
"""Lowest and highest value, shape (tensors,); then count, sum of magnitudes and sum of squares of each cell,
shape (tensors, 2 * CELLS)."""
Kernel: TypeAlias = Callable[[Flat, Ints], Histogram]


def histogram_numpy(update: Flat, bounds: Ints) -> Histogram:
    """The plain twin of `histogram`, the same bit for bit; both sum in the order of the values.

    Args:
        update: Finite float32 values, shape (values,).
        bounds: First value of each tensor and the end of the last, shape (tensors + 1,); no tensor is empty.
    """
    tensors = len(bounds) - 1
    bits = update.view(np.int32)
    keys = (bits & _MAGNITUDE).astype(np.int64) >> _SHIFT
    top = np.repeat(np.maximum.reduceat(keys, bounds[:-1]), np.diff(bounds))
    cells = 2 * np.minimum(top - keys, CELLS - 1) + (bits < 0)
    cells += 2 * CELLS * np.repeat(np.arange(tensors), np.diff(bounds))
    magnitudes = np.abs(update).astype(np.float64)
    shape, length = (tensors, 2 * CELLS), tensors * 2 * CELLS
    return (
        np.minimum.reduceat(update, bounds[:-1]).astype(np.float64),
        np.maximum.reduceat(update, bounds[:-1]).astype(np.float64),
        np.bincount(cells, minlength=length).astype(np.int64).reshape(shape),
        np.bincount(cells, magnitudes, length).astype(np.float64).reshape(shape),
        np.bincount(cells, magnitudes * magnitudes, length).astype(np.float64).reshape(shape),
    )


def _histogram(update: Flat, bounds: Ints) -> Histogram:
    tensors = len(bounds) - 1
    bits = update.view(np.int32)
    low = np.empty(tensors)
    high = np.empty(tensors)
    counts = np.zeros((tensors, 2 * CELLS), np.int64)
    sums = np.zeros((tensors, 2 * CELLS))
    squares = np.zeros((tensors, 2 * CELLS))
    for tensor in range(tensors):
        start, end = bounds[tensor], bounds[tensor + 1]
        least = most = update[start]
        for i in range(start, end):
            least = min(least, update[i])
            most = max(most, update[i])
        low[tensor], high[tensor] = least, most
        top = np.int64(0)
        for i in range(start, end):
            top = max(top, np.int64(bits[i] & _MAGNITUDE) >> _SHIFT)
        for i in range(start, end):
            below = top - (np.int64(bits[i] & _MAGNITUDE) >> _SHIFT)
            cell = 2 * (below if below < CELLS else CELLS - 1) + (1 if bits[i] < 0 else 0)
            magnitude = np.float64(np.abs(update[i]))
            counts[tensor, cell] += 1
            sums[tensor, cell] += magnitude
            squares[tensor, cell] += magnitude * magnitude
    return low, high, counts, sums, squares


histogram: Kernel = numba.njit(cache=True)(_histogram)
"""`histogram_numpy` in one pass over each tensor, compiled."""


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
        sizes = np.array([tensor.size for tensor in schema.tensors if tensor.size], np.int64)
        bounds = np.concatenate([np.zeros(1, np.int64), np.cumsum(sizes)])
        low, high, counts, sums, squares = histogram(np.ascontiguousarray(update, np.float32), bounds)
        tensor, cells = np.nonzero(counts)
        starts = np.searchsorted(tensor, np.arange(len(bounds))).astype(np.int64)
        squares = squares[tensor, cells]
        energy = np.array([_total(squares[start:end]) for start, end in pairwise(starts)], np.float64)
        return cls(
            schema=schema,
            sizes=np.diff(bounds),
            low=low,
            high=high,
            energy=energy,
            starts=starts,
            cells=cells.astype(np.int64),
            counts=counts[tensor, cells],
            sums=sums[tensor, cells],
            squares=squares,
        )

    @property
    def size(self) -> int:
        """Values of the whole update."""
        return self.schema.size

    @property
    def norm(self) -> float:
        """Euclidean norm of the whole update."""
        return float(np.sqrt(_total(self.energy)))


def _total(values: Floats) -> float:
    """Sum from first to last, which no machine reorders."""
    return float(np.cumsum(values)[-1]) if len(values) else 0.0
