"""The loops that fit centroids to values, compiled; their twins are in `tightwire.codecs.kmeans_twins`.

All sums run from the first term to the last, in float64, so that the same values give the same centroids everywhere.
"""

import math

import numba
import numpy as np

from tightwire.arrays import Flat
from tightwire.codecs.kernels import STEP, noise
from tightwire.wire.words import add32, mul32, shr32

ROUNDS = 60
"""Of Lloyd's algorithm, at most."""
OUTER = 128
"""Points at either end that are looked at one by one when the first centroids are placed."""
RUN = 256
"""Values whose extremes tell whether any of them lies outside."""
_FEW = 32
_DIGITS = 2048


@numba.njit(cache=True, nogil=True)
def sample(values, out):  # type: ignore[no-untyped-def]  # numba infers the types
    """One value of each of `out.size` stretches of equal length to `out`, at a place that looks random."""
    length, rest = values.size // out.size, values.size % out.size
    start = part = 0
    for i in range(out.size):
        part += rest
        more = part >= out.size
        part -= out.size if more else 0
        end = start + length + more  # (i + 1) * values.size // out.size
        draw = np.int64(noise(mul32(np.uint32(i), STEP), np.uint32(0), np.uint32(0)))
        out[i] = values[start + (draw * (end - start) >> 24)]
        start = end


@numba.njit(cache=True, nogil=True)
def _sort(raw):  # type: ignore[no-untyped-def]  # numba infers the types
    a, b = np.empty(raw.size, np.uint32), np.empty(raw.size, np.uint32)
    ends = np.zeros((3, _DIGITS), np.uint32)  # unsigned: numba asks of no sign then
    lowest, middle, highest = ends[0], ends[1], ends[2]
    top, low = np.uint32(0x80000000), np.uint32(_DIGITS - 1)
    for i in range(raw.size):
        key = np.uint32(raw[i] ^ (np.uint32(np.int32(raw[i]) >> np.int32(31)) | top))
        a[i] = key
        lowest[key & low] += np.uint32(1)
        middle[shr32(key, np.uint32(11)) & low] += np.uint32(1)
        highest[shr32(key, np.uint32(22))] += np.uint32(1)
    for place in range(3):
        total = np.uint32(0)
        for digit in range(_DIGITS):
            here = ends[place, digit]
            ends[place, digit] = total
            total = add32(total, here)
    for i in range(raw.size):
        key = a[i]
        at = lowest[key & low]
        b[at] = key
        lowest[key & low] = add32(at, np.uint32(1))
    for i in range(raw.size):
        key = b[i]
        digit = shr32(key, np.uint32(11)) & low
        at = middle[digit]
        a[at] = key
        middle[digit] = add32(at, np.uint32(1))
    for i in range(raw.size):
        key = a[i]
        digit = shr32(key, np.uint32(22))
        at = highest[digit]
        raw[at] = np.uint32(key ^ (top | ~np.uint32(np.int32(key) >> np.int32(31))))
        highest[digit] = add32(at, np.uint32(1))


def sort(values: Flat) -> None:
    """Sort finite `values` in place, -0 before 0, by the digits of their bits; for some thousands."""
    _sort(values.view(np.uint32))


@numba.njit(cache=True, nogil=True)
def outside(values, ends, low, high, out):  # type: ignore[no-untyped-def]  # numba infers the types
    """Values below `low` or above `high`, the first `out.size` of them, to `out`; returns how many.

    `ends` are the extremes of each `RUN` values, shape (runs, 2).
    """
    count = 0
    for run in range(ends.shape[0]):
        if ends[run, 0] < low or ends[run, 1] > high:
            for start in range(run * RUN, min((run + 1) * RUN, values.size), _FEW):
                part = values[start : min(start + _FEW, values.size)]
                found = np.int32(0)
                for lane in range(part.size):
                    found |= np.int32(part[lane] < low) | np.int32(part[lane] > high)
                if found:
                    for lane in range(part.size):
                        if part[lane] < low or part[lane] > high:
                            if count == out.size:
                                return count
                            out[count] = part[lane]
                            count += 1
    return count


@numba.njit(cache=True, nogil=True)
def spotted(values, ends, size, tail):  # type: ignore[no-untyped-def]  # numba infers the types
    """Points to fit centroids to, in order, and their weights.

    A value from each of `size` stretches stands for that many. Where values are far apart that is not enough: all that
    lie beyond the `tail`-th smallest and the `tail`-th largest of these stand for themselves.

    Args:
        values: Shape (n,), n > size.
        ends: Smallest and largest of each `RUN` of them, shape (runs, 2).
        size: Of the sample.
        tail: 1 to size / 4.
    """
    points = np.empty(size, np.float32)
    sample(values, points)
    _sort(points.view(np.uint32))
    low, high = points[tail - 1], points[size - tail]
    smallest, largest = ends[0]
    for run in range(1, ends.shape[0]):
        smallest, largest = min(smallest, ends[run, 0]), max(largest, ends[run, 1])
    if smallest == low and largest == high:
        return points, np.ones(size)
    first, last = 0, size
    while points[first] < low:
        first += 1
    while points[last - 1] > high:
        last -= 1
    inner = last - first
    room = np.empty((2 * tail + 64) * 2 * (values.size // size), np.float32)
    beyond = room[: outside(values, ends, low, high, room)]
    _sort(beyond.view(np.uint32))
    edge = 0
    while edge < beyond.size and beyond[edge] < low:
        edge += 1
    found = np.empty(inner + beyond.size, np.float32)
    found[:edge] = beyond[:edge]
    found[edge : edge + inner] = points[first:last]
    found[edge + inner :] = beyond[edge:]
    weights = np.ones(found.size)
    weights[edge : edge + inner] = (values.size - beyond.size) / inner
    return found, weights


@numba.njit(cache=True, nogil=True)
def thresholds(table, out):  # type: ignore[no-untyped-def]  # numba infers the types
    """The largest float32 not beyond the middle of each entry and the next, exactly; infinity behind the last."""
    for i in range(table.size - 1):
        left, right = np.float64(table[i]), np.float64(table[i + 1])
        total = left + right
        back = total - left
        lost = (left - (total - back)) + (right - back)  # total + lost is the exact sum (Knuth's two-sum)
        near = np.float32(total / 2)
        out[i] = near
        if 2 * np.float64(near) - total > lost:
            out[i] = np.nextafter(near, np.float32(-np.inf))
    out[table.size - 1] = np.inf


@numba.njit(cache=True, nogil=True)
def cube_root(x):  # type: ignore[no-untyped-def]  # numba infers the types
    """The cube root of x >= 0 to within 1 %, by operations that give the same bits on every machine."""
    mantissa, exponent = math.frexp(x)
    if mantissa == 0:
        return 0.0
    third = exponent // 3
    return math.ldexp((0.586 + 0.42 * mantissa) * (1.0, 1.26, 1.587)[exponent - 3 * third], third)


@numba.njit(cache=True, nogil=True)
def _spread(points, weights, centroids):  # type: ignore[no-untyped-def]  # numba infers the types
    """Centroids to start from, as dense as the points to the power 1/3, which is best for many (Panter and Dite 1951).

    Points are taken together by `stride`, but for the outermost, where much can lie between two.
    """
    k, last = centroids.size, points.size - 1
    stride = max(1, points.size // (32 * k))
    room = last // stride + stride + 2 * OUTER + 1
    ends, reached = np.empty(room, np.int64), np.empty(room)
    ends[0], reached[0] = 0, 0.0
    cells = 0
    while ends[cells] < last:
        left = ends[cells]
        right = left + (stride if left >= OUTER and left + stride + OUTER <= last else 1)
        gap, mass = np.float64(points[right]) - np.float64(points[left]), weights[left] * (right - left)
        cells += 1
        ends[cells] = right
        reached[cells] = reached[cells - 1] + cube_root(gap * gap * mass)
    cell = 0
    for j in range(k):
        wanted = reached[cells] * (j + 0.5) / k
        while cell < cells - 1 and reached[cell + 1] < wanted:
            cell += 1
        left, right = np.float64(points[ends[cell]]), np.float64(points[ends[cell + 1]])
        width = reached[cell + 1] - reached[cell]
        centroids[j] = left + (right - left) * ((wanted - reached[cell]) / width if width > 0 else 0.0)


@numba.njit(cache=True, nogil=True)
def _refill(points, mass, moment, square, ends):  # type: ignore[no-untyped-def]  # numba infers the types
    """Give what empty cells have to others: again and again the cell with the largest error is cut at its mean.

    Cells are points[ends[j]:ends[j + 1]]; those that stay empty come last.
    """
    k, filled = ends.size - 1, 0
    for j in range(k):
        if ends[j + 1] > ends[j]:
            filled += 1
            ends[filled] = ends[j + 1]
    while filled < k:
        worst, largest = -1, 0.0
        for j in range(filled):
            first, last = ends[j], ends[j + 1]
            total = moment[last] - moment[first]
            error = (square[last] - square[first]) - total * total / (mass[last] - mass[first])
            if error > largest:
                worst, largest = j, error
        if worst < 0:
            break
        first, last = ends[worst], ends[worst + 1]
        mean = (moment[last] - moment[first]) / (mass[last] - mass[first])
        middle = first
        while middle < last and points[middle] <= mean:
            middle += 1
        if middle in (first, last):
            break
        for j in range(filled, worst, -1):
            ends[j + 1] = ends[j]
        ends[worst + 1] = middle
        filled += 1
    ends[filled:] = points.size


@numba.njit(cache=True, nogil=True)
def _rounds(points, mass, moment, square, centroids, ends):  # type: ignore[no-untyped-def]  # numba infers the types
    """Cells of the nearest centroid, and centroids in the mean of their cell, until nothing moves."""
    k, m = centroids.size, points.size
    for _ in range(ROUNDS):
        moved, full = False, True
        for j in range(1, k):
            middle, end = (centroids[j - 1] + centroids[j]) * 0.5, ends[j]
            while end < m and points[end] <= middle:
                end += 1
            while end > 0 and points[end - 1] > middle:
                end -= 1
            moved |= end != ends[j]
            ends[j] = end
            full &= ends[j] > ends[j - 1]
        if not (full and ends[k] > ends[k - 1]):
            _refill(points, mass, moment, square, ends)
            moved = True
        for j in range(k):
            first, last = ends[j], ends[j + 1]
            centroids[j] = points[m - 1]
            if last > first:
                mean = (moment[last] - moment[first]) / (mass[last] - mass[first])
                centroids[j] = min(max(mean, np.float64(points[first])), np.float64(points[last - 1]))
        if not moved:
            break


@numba.njit(cache=True, nogil=True)
def lloyd(points, weights, table):  # type: ignore[no-untyped-def]  # numba infers the types
    """Lloyd's algorithm in one dimension.

    Args:
        points: In order, shape (m,), float32, m > 0.
        weights: Of each, shape (m,), float64.
        table: Takes the centroids, in order and all different; shape (k,).

    Returns:
        How many there are: at most k, and the points themselves where they take no more than k different values.
    """
    k, m = table.size, points.size
    count = 0
    for i in range(m):
        if i == 0 or points[i] != points[i - 1]:
            if count < k:
                table[count] = points[i] + np.float32(0)
            count += 1
            if count > k:
                break
    if count <= k:
        return count
    mass, moment, square = np.zeros(m + 1), np.zeros(m + 1), np.zeros(m + 1)
    for i in range(m):
        point = np.float64(points[i])
        mass[i + 1] = mass[i] + weights[i]
        moment[i + 1] = moment[i] + weights[i] * point
        square[i + 1] = square[i] + weights[i] * point * point
    centroids, ends = np.empty(k), np.empty(k + 1, np.int64)
    for j in range(k + 1):
        ends[j] = m * j // k
    _spread(points, weights, centroids)
    _rounds(points, mass, moment, square, centroids, ends)
    count = 0
    for j in range(k):
        weight, total = 0.0, 0.0
        for i in range(ends[j], ends[j + 1]):
            weight += weights[i]
            total += weights[i] * np.float64(points[i])
        if ends[j + 1] > ends[j]:
            centroid = np.float32(total / weight) + np.float32(0)
            if count == 0 or centroid > table[count - 1]:
                table[count] = centroid
                count += 1
    return count


@numba.njit(cache=True, nogil=True)
def lloyd_spotted(values, ends, size, tail, table):  # type: ignore[no-untyped-def]  # numba infers the types
    """`lloyd` for the points and weights that `spotted` finds."""
    points, weights = spotted(values, ends, size, tail)
    return lloyd(points, weights, table)


@numba.njit(cache=True, nogil=True)
def lloyd_rows(points, table, tables, counts):  # type: ignore[no-untyped-def]  # numba infers the types
    """`lloyd` for each row of `points`, by weights of 1; centroids one after another to `tables`, returns how many."""
    weights = np.ones(points.shape[1])
    end = 0
    for row in range(points.shape[0]):
        counts[row] = lloyd(points[row], weights, table)
        tables[end : end + counts[row]] = table[: counts[row]]
        end += counts[row]
    return end
