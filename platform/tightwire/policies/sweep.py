"""What top-k and stochastic rounding do to an update, expected from its histogram, for a whole grid at once.

The values of one histogram cell are taken as uniform within sqrt(3) standard deviations of the mean of their
magnitudes, which is exact for cells of one value. Densities are walked upwards: while both ends of the kept
range stay where they are, a denser point only adds values to the levels that the last one has filled, so that
a whole row of densities costs one pass over cells and levels.
"""

import math
from dataclasses import dataclass

import numba
import numpy as np

from tightwire.arrays import Floats, Ints
from tightwire.policies.levels import LOGS, spread
from tightwire.policies.stats import UpdateStats


@dataclass(frozen=True, slots=True, eq=False)
class Sweep:
    """Expectations for each tensor, bit width and density, all of shape (tensors, bits, densities)."""

    error: Floats
    """Squared error: energy dropped and variance of rounding."""
    entropy: Floats
    """Bits of all codes of the tensor together, by the empirical entropy of the codes drawn."""
    levels: Floats
    """Levels that occur among the codes."""


def sweep(stats: UpdateStats, bits: Ints, kept: Ints) -> Sweep:
    """Expectations over a grid.

    Args:
        stats: The update's statistics.
        bits: Bit widths, shape (bits,).
        kept: Values that top-k keeps of each tensor at each density, rising along the row, shape (tensors,
            densities).
    """
    error, logs, levels = _sweep(
        bits,
        kept,
        stats.starts,
        stats.cells,
        stats.counts,
        stats.sums,
        stats.squares,
        stats.low,
        stats.high,
        LOGS,
    )
    return Sweep(error, np.maximum((kept * np.log2(kept))[:, None, :] - logs, 0.0), levels)


@numba.njit(cache=True, nogil=True)
def _group_end(cells, at):  # type: ignore[no-untyped-def]  # numba infers them
    """End of the group of cells at `at`: the one or two signs of one magnitude."""
    if at + 1 < len(cells) and cells[at + 1] >> 1 == cells[at] >> 1:
        return at + 2
    return at + 1


@numba.njit(cache=True, nogil=True)
def _cuts(cells, counts, means, halves, squares, kept, low, high):  # type: ignore[no-untyped-def]  # so
    """Where top-k cuts one tensor at each density.

    Returns:
        The first cell not wholly kept, the share of its group that is kept, the energy dropped, and the
        lowest and highest value kept, each of shape (densities,).
    """
    place = np.zeros(len(kept), np.int64)
    share = np.zeros(len(kept))
    dropped = np.zeros(len(kept))
    lowest = np.zeros(len(kept))
    highest = np.zeros(len(kept))
    left = np.zeros(len(cells) + 1)
    for cell in range(len(cells) - 1, -1, -1):
        left[cell] = left[cell + 1] + squares[cell]
    signs = np.zeros(2, np.bool_)
    at = 0
    taken = 0
    edge = 0.0
    for point in range(len(kept)):
        group = 0
        while at < len(cells):
            stop = _group_end(cells, at)
            group = counts[at:stop].sum()
            if taken + group > kept[point]:
                break
            for cell in range(at, stop):
                signs[cells[cell] & 1] = True
            edge = means[stop - 1] - halves[stop - 1]
            taken += group
            at = stop
        place[point] = at
        if at == len(cells):
            lowest[point], highest[point] = low, high
            continue
        share[point] = (kept[point] - taken) / group
        stop = _group_end(cells, at)
        dropped[point] = left[stop]
        bottom = edge
        both = signs.copy()
        for cell in range(at, stop):
            near = means[cell] - halves[cell]
            far = means[cell] + halves[cell] - 2 * halves[cell] * share[point]
            dropped[point] += counts[cell] * (1 - share[point]) * (near * near + near * far + far * far) / 3
            if share[point] * counts[cell] >= 0.5:
                both[cells[cell] & 1] = True
                bottom = far
        lowest[point] = low if both[1] else bottom
        highest[point] = high if both[0] else -bottom
    return place, share, dropped, lowest, highest


@numba.njit(cache=True, nogil=True)
def _sweep(bits, kept, starts, cells, counts, sums, squares, low, high, table):  # type: ignore[no-untyped-def]  # so
    tensors, points = kept.shape
    error = np.zeros((tensors, len(bits), points))
    logs = np.zeros((tensors, len(bits), points))
    used = np.ones((tensors, len(bits), points))
    totals = np.zeros(3)
    means = sums / counts
    halves = np.sqrt(3 * np.maximum(squares / counts - means * means, 0.0))
    for tensor in range(tensors):
        own = slice(starts[tensor], starts[tensor + 1])
        cell_of, mean, half, count = cells[own], means[own], halves[own], counts[own]
        place, share, dropped, lowest, highest = _cuts(
            cell_of, count, mean, half, squares[own], kept[tensor], low[tensor], high[tensor]
        )
        for row in range(len(bits)):
            levels = np.zeros(1 << bits[row])
            doubled = np.zeros(1 << bits[row])
            at = 0
            done = 0.0
            bottom, top = np.nan, np.nan
            for point in range(points):
                step = (highest[point] - lowest[point]) / (len(levels) - 1)
                if step <= 0:
                    error[tensor, row, point] = dropped[point]
                    logs[tensor, row, point] = kept[tensor, point] * math.log2(float(kept[tensor, point]))
                    continue
                if bottom != lowest[point] or top != highest[point]:
                    bottom, top = lowest[point], highest[point]
                    levels[:] = 0
                    doubled[:] = 0
                    totals[0], totals[1], totals[2] = 0.0, 0.0, len(levels)
                    at = 0
                    done = 0.0
                while at < place[point] or done < share[point]:
                    until = 1.0 if at < place[point] else share[point]
                    stop = _group_end(cell_of, at)
                    for cell in range(at, stop):
                        far = mean[cell] + half[cell] * (1 - 2 * done)
                        near = mean[cell] + half[cell] * (1 - 2 * until)
                        if cell_of[cell] & 1:
                            near, far = -far, -near
                        start = (near - bottom) / step
                        end = (far - bottom) / step
                        spread(start, end, count[cell] * (until - done), levels, doubled, totals, table)
                    if at == place[point]:
                        done = until
                        break
                    at = stop
                    done = 0.0
                error[tensor, row, point] = dropped[point] + totals[0] * step * step
                logs[tensor, row, point] = totals[1]
                used[tensor, row, point] = len(levels) - totals[2]
    return error, logs, used
