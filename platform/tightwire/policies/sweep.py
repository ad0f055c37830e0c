"""What top-k and stochastic rounding do to an update, expected from its histogram, point by point of a grid.

The values of one histogram cell are taken as uniform within sqrt(3) standard deviations of the mean of their
magnitudes, which is exact for cells of one value. Errors cost next to nothing: along a row of densities, while both
ends of the kept range stay where they are, a denser point only adds its new values to the variance. Codes cost more,
since every level of the quantiser counts, so that `codes` can be asked for single points.
"""

import math
from dataclasses import dataclass

import numba
import numpy as np

from tightwire.arrays import Floats, Ints
from tightwire.policies.levels import TABLES, spread, tally, variance
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
    columns = (stats.starts, stats.cells, stats.counts, stats.sums, stats.squares, stats.low, stats.high)
    return Sweep(*_sweep(bits, kept, *columns, TABLES))


@numba.njit(cache=True, nogil=True, error_model="numpy")
def _group_end(cells, at):  # type: ignore[no-untyped-def]  # numba infers them
    """End of the group of cells at `at`: the one or two signs of one magnitude."""
    if at + 1 < len(cells) and cells[at + 1] >> 1 == cells[at] >> 1:
        return at + 2
    return at + 1


@numba.njit(cache=True, nogil=True, error_model="numpy")
def shapes(counts, sums, squares):  # type: ignore[no-untyped-def]  # numba infers them
    """Mean and half width of the magnitudes of each cell."""
    means = sums / counts
    return means, np.sqrt(3 * np.maximum(squares / counts - means * means, 0.0))


@numba.njit(cache=True, nogil=True, error_model="numpy")
def cuts(cells, counts, means, halves, moments, kept, low, high):  # type: ignore[no-untyped-def]  # so
    """Where top-k cuts one tensor at each density.

    Returns:
        The first cell not wholly kept, the share of its group that is kept, the energy dropped, and the
        lowest and highest value kept, each of shape (densities,).
    """
    points, end = len(kept), len(cells)
    place, share, dropped = np.zeros(points, np.int64), np.zeros(points), np.zeros(points)
    lowest, highest = np.zeros(points), np.zeros(points)
    energy = moments[end, 2] + moments[end, 5]
    some_above = some_below = False
    at = 0
    taken = 0
    edge = 0.0
    for point in range(points):
        group = 0
        while at < end:
            stop = _group_end(cells, at)
            group = counts[at] + (counts[at + 1] if stop > at + 1 else 0)
            if taken + group > kept[point]:
                break
            for cell in range(at, stop):
                some_below |= bool(cells[cell] & 1)
                some_above |= not cells[cell] & 1
            edge = means[stop - 1] - halves[stop - 1]
            taken += group
            at = stop
        place[point] = at
        if at == end:
            lowest[point], highest[point] = low, high
            continue
        share[point] = (kept[point] - taken) / group
        stop = _group_end(cells, at)
        dropped[point] = energy - moments[stop, 2] - moments[stop, 5] if stop < end else 0.0
        bottom = edge
        above, below = some_above, some_below
        for cell in range(at, stop):
            near = means[cell] - halves[cell]
            far = means[cell] + halves[cell] - 2 * halves[cell] * share[point]
            dropped[point] += counts[cell] * (1 - share[point]) * (near * near + near * far + far * far) / 3
            if share[point] * counts[cell] >= 0.5:
                below |= bool(cells[cell] & 1)
                above |= not cells[cell] & 1
                bottom = far
        lowest[point] = low if below else bottom
        highest[point] = high if above else -bottom
    return place, share, dropped, lowest, highest


@numba.njit(cache=True, nogil=True, error_model="numpy")
def running(cells, counts, sums, squares):  # type: ignore[no-untyped-def]  # numba infers them
    """Counts, sums and sums of squares of all cells before each, of positive values and then of negative ones.

    Returns:
        Shape (cells + 1, 6).
    """
    result = np.empty((len(cells) + 1, 6))
    number = linear = square = other_number = other_linear = other_square = 0.0
    for at in range(len(cells) + 1):
        row = result[at]
        row[0], row[1], row[2] = number, linear, square
        row[3], row[4], row[5] = other_number, other_linear, other_square
        if at < len(cells):
            if cells[at] & 1:
                other_number += counts[at]
                other_linear += sums[at]
                other_square += squares[at]
            else:
                number += counts[at]
                linear += sums[at]
                square += squares[at]
    return result


@numba.njit(cache=True, nogil=True, error_model="numpy")
def _around_zero(bottom, step, last):  # type: ignore[no-untyped-def]  # numba infers them
    """Where zero lies among the levels.

    Returns:
        The level below zero, how far above it zero lies in steps, and how far values may lie above and below zero
        without crossing a level; the latter are negative where zero is not among the levels.
    """
    zero = -bottom / step
    if zero < 0 or zero > last:
        return 0, 0.0, -1.0, -1.0
    level = min(int(zero), int(last) - 1)
    part = zero - level
    return level, part, (1 - part) * step, part * step


@numba.njit(cache=True, nogil=True, error_model="numpy")
def errors(part, cut, width, first, stop, dense, out):  # type: ignore[no-untyped-def]  # numba infers them
    """Add one tensor's expected squared error under `width` bits to `out`.

    That is at the densities first .. stop - 1, and if `dense` at the last one, which is not among these. Of the values
    between the two levels around zero, which are most, counts and moments say all.
    """
    cells, counts, means, halves, moments = part
    place, share, dropped, lowest, highest = cut
    last = float((1 << width) - 1)
    bottom, top, scale = np.nan, np.nan, 0.0
    zero, above, below = 0.0, 0.0, 0.0
    near_above = near_below = -1
    whole = 0.0
    at = 0
    for point in range(first, stop + 1 if dense else stop):
        if point == stop:
            point = len(place) - 1
        out[point] += dropped[point]
        step = (highest[point] - lowest[point]) / last
        if step <= 0:
            continue
        if bottom != lowest[point] or top != highest[point]:
            bottom, top, scale = lowest[point], highest[point], 1 / step
            _, zero, above, below = _around_zero(bottom, step, last)
            near_above = near_below = -1
            whole = 0.0
            at = 0
        while at < place[point] and (near_above < 0 or near_below < 0):
            negative = cells[at] & 1
            if near_above < 0 and not negative and means[at] + halves[at] <= above:
                near_above = at
            if near_below < 0 and negative and means[at] + halves[at] <= below:
                near_below = at
            if (near_below if negative else near_above) < 0:
                centre = (-means[at] if negative else means[at]) - bottom
                whole += counts[at] * variance((centre - halves[at]) * scale, (centre + halves[at]) * scale, last)
            at += 1
        total = whole
        for negative in range(2):
            begin = near_below if negative else near_above
            if begin >= 0:
                end = place[point]
                number = moments[end, 3 * negative] - moments[begin, 3 * negative]
                linear = moments[end, 3 * negative + 1] - moments[begin, 3 * negative + 1]
                square = moments[end, 3 * negative + 2] - moments[begin, 3 * negative + 2]
                slope = (2 * zero - 1 if negative else 1 - 2 * zero) * scale
                total += number * zero * (1 - zero) + linear * slope - square * scale * scale
        if share[point] > 0:
            for cell in range(place[point], _group_end(cells, place[point])):
                near, far = _kept_part(cells[cell], means[cell], halves[cell], share[point])
                total += share[point] * counts[cell] * variance((near - bottom) * scale, (far - bottom) * scale, last)
        out[point] += total * step * step


@numba.njit(cache=True, nogil=True, error_model="numpy")
def _kept_part(cell, mean, half, share):  # type: ignore[no-untyped-def]  # numba infers them
    """Ends of the values of a cell, of which only that share of largest magnitudes is kept."""
    far = mean + half
    near = far - 2 * half * share
    if cell & 1:
        return -far, -near
    return near, far


@numba.njit(cache=True, nogil=True, error_model="numpy")
def codes(part, cut, point, kept, levels, doubled, table):  # type: ignore[no-untyped-def]  # numba infers them
    """Entropy in bits of one tensor's `kept` codes together, and levels that occur, at one density.

    `levels` and `doubled` are memory, as long as the quantiser has levels, and `table` is `TABLES`.
    """
    cells, counts, means, halves, moments = part
    place, share, _, lowest, highest = cut
    bottom, stop, last = lowest[point], place[point], float(len(levels) - 1)
    step = (highest[point] - bottom) / last
    if step <= 0:
        return 0.0, 1.0
    levels[:] = 0
    doubled[:] = 0
    scale = 1 / step
    middle, zero, above, below = _around_zero(bottom, step, last)
    near_above = near_below = stop
    for at in range(stop):
        if cells[at] & 1:
            if near_below < stop:
                continue
            if means[at] + halves[at] <= below:
                near_below = at
                if near_above < stop:
                    break
                continue
            centre = -means[at] - bottom
        else:
            if near_above < stop:
                continue
            if means[at] + halves[at] <= above:
                near_above = at
                if near_below < stop:
                    break
                continue
            centre = means[at] - bottom
        spread((centre - halves[at]) * scale, (centre + halves[at]) * scale, counts[at], levels, doubled)
    for negative in range(2):
        begin = near_below if negative else near_above
        if begin < stop:
            number = moments[stop, 3 * negative] - moments[begin, 3 * negative]
            linear = (moments[stop, 3 * negative + 1] - moments[begin, 3 * negative + 1]) * scale
            square = (moments[stop, 3 * negative + 2] - moments[begin, 3 * negative + 2]) * scale * scale
            if negative:
                linear = -linear
            rest = 1 - zero
            levels[middle] += max(number * rest - linear, 0.0)
            doubled[middle] += max(number * rest * rest - 2 * rest * linear + square, 0.0)
            levels[middle + 1] += max(number * zero + linear, 0.0)
            doubled[middle + 1] += max(number * zero * zero + 2 * zero * linear + square, 0.0)
    if share[point] > 0:
        for cell in range(stop, _group_end(cells, stop)):
            near, far = _kept_part(cells[cell], means[cell], halves[cell], share[point])
            mass = share[point] * counts[cell]
            spread((near - bottom) * scale, (far - bottom) * scale, mass, levels, doubled)
    logs, occupied = tally(levels, doubled, table)
    return max(kept * math.log2(kept) - logs, 0.0), occupied


@numba.njit(cache=True, nogil=True, error_model="numpy")
def opened(tensors, kept, starts, cells, counts, sums, squares, low, high):  # type: ignore[no-untyped-def]  # so
    """The cells of each tensor, and where top-k cuts them."""
    means, halves = shapes(counts, sums, squares)
    parts = []
    for at, tensor in enumerate(tensors):
        own = slice(starts[tensor], starts[tensor + 1])
        moments = running(cells[own], counts[own], sums[own], squares[own])
        part = cells[own], counts[own], means[own], halves[own], moments
        cut = cuts(part[0], part[1], part[2], part[3], moments, kept[at], low[tensor], high[tensor])
        parts.append((part, cut))
    return parts


@numba.njit(cache=True, nogil=True, error_model="numpy")
def _sweep(bits, kept, starts, cells, counts, sums, squares, low, high, table):  # type: ignore[no-untyped-def]  # so
    tensors, points = kept.shape
    error = np.zeros((tensors, len(bits), points))
    entropy = np.zeros((tensors, len(bits), points))
    used = np.ones((tensors, len(bits), points))
    parts = opened(np.arange(tensors), kept, starts, cells, counts, sums, squares, low, high)
    for tensor, (part, cut) in enumerate(parts):
        for row in range(len(bits)):
            levels, doubled = np.zeros(1 << bits[row]), np.zeros(1 << bits[row])
            errors(part, cut, bits[row], np.int64(0), points, np.bool_(False), error[tensor, row])
            for point in range(points):
                entropy[tensor, row, point], used[tensor, row, point] = codes(
                    part, cut, point, kept[tensor, point], levels, doubled, table
                )
    return error, entropy, used
