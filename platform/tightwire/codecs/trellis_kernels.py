"""The hot loops of `tightwire.codecs.trellis`, compiled by numba; `tightwire.codecs.trellis_twins` has them in NumPy.

All work on a grid: values in units of the step, and multiples of it, which are what they are decoded as. Four subsets
of the multiples take turns, numbered 2 * quantiser + parity of the code. The codes of a subset are 2 * h + parity for
h = 0, 1, ... with both signs, and their multiples 4 * h + 2 - o, at least 0, where o is the subset's `OFFSETS`.

Value i belongs to lane i % lanes. Each lane walks the trellis on its own, all of them row by row, so that the inner
loops run on SIMD registers.
"""

import math

import numba
import numpy as np

from tightwire.wire.words import add32, mul32, shr32

LANES = 256
"""Lanes of a long plane."""
BLOCK = 256
"""Rows whose path is settled at a time."""
AHEAD = 32
"""Rows that are searched beyond a block before its path is settled: then the best paths have long been one."""
PEAK = np.float32(4092)
"""Largest magnitude on the grid, in steps: the nearest code of no subset is beyond 2047."""
SERIES = tuple(2 / math.log(2) / odd for odd in (1, 3, 5, 7, 9))
"""Of log2 x = sum SERIES[i] * s**(2 i + 1), with s = (x - 1) / (x + 1)."""

_ROOT = math.sqrt(0.5)
_FAR = np.float32(1e30)
_SUMS = 16
_LARGEST = np.float32(np.finfo(np.float32).max)


@numba.njit(cache=True, nogil=True)
def to_grid(values, length, inverses, grid):  # type: ignore[no-untyped-def]  # numba infers the types
    """Write values times the `inverses` (float64) of their groups to `grid`."""
    for group in range(inverses.size):
        start, end = group * length, min((group + 1) * length, values.size)
        inverse = inverses[group]
        part, out = values[start:end], grid[start:end]
        for at in range(part.size):
            out[at] = min(max(np.float32(part[at] * inverse), -PEAK), PEAK)


@numba.njit(cache=True, nogil=True)
def sample(values, out):  # type: ignore[no-untyped-def]  # numba infers the types
    """Fill `out` with values at even distances."""
    for at in range(out.size):
        out[at] = values[np.int64(at) * values.size // out.size]


@numba.njit(cache=True, nogil=True, inline="always")
def follow(state, parity, taps0, taps1):  # type: ignore[no-untyped-def]  # numba infers the types
    """The state behind `state` after a code of that parity."""
    return (state >> 1) ^ (-(state & 1) & taps0) ^ (-parity & taps1)


@numba.njit(cache=True, nogil=True, inline="always")
def _source(state, parity, states, taps0, taps1):  # type: ignore[no-untyped-def]  # numba infers the types
    """The state from which a code of that parity leads to `state`; the upper half is what quantiser 1 leads to."""
    quantiser = np.int32(state >= states >> 1)
    return (((state ^ (-quantiser & taps0) ^ (-parity & taps1)) << 1) & (states - 1)) | quantiser


@numba.njit(cache=True, nogil=True, inline="always")
def _branches(values, classes, cells, penalties, indices, picked, costs):  # type: ignore[no-untyped-def]  # numba infers the types
    """Cost of the nearest multiple of each subset, shape (4, lanes): squared distance plus penalty."""
    width = values.size
    for lane in range(width):
        indices[lane] = add32(np.uint32(abs(values[lane])), mul32(np.uint32(classes[lane]), cells))
    for lane in range(width):
        index = np.int64(indices[lane])
        picked[0, lane] = penalties[index, 0]
        picked[1, lane] = penalties[index, 1]
        picked[2, lane] = penalties[index, 2]
        picked[3, lane] = penalties[index, 3]
    for subset in range(4):
        offset = np.float32(2 - (subset & 1) * 2 + (subset >> 1))
        penalty, out = picked[subset], costs[subset]
        for lane in range(width):
            value = abs(values[lane])
            multiple = np.float32(np.int32((value + offset) * np.float32(0.25))) * np.float32(4) + (
                np.float32(2) - offset
            )
            distance = value - (multiple if multiple > 0 else np.float32(0))
            out[lane] = distance * distance + penalty[lane]


@numba.njit(cache=True, nogil=True, inline="always")
def _step(marks, taps0, taps1, costs, width, old, new, decisions):  # type: ignore[no-untyped-def]  # numba infers the types
    """From the totals of paths to every state, `old`, to those one row later; decides on the parities before them."""
    decisions[:] = 0
    half = marks.size >> 1
    for state in range(marks.size):
        quantiser = np.int64(state >= half)
        a = _source(state, 0, marks.size, taps0, taps1)
        b = _source(state, 1, marks.size, taps0, taps1)
        old_a, old_b, cost_a, cost_b = old[a], old[b], costs[2 * quantiser], costs[2 * quantiser + 1]
        total, mark = new[state], marks[state]
        for lane in range(width):
            total_a, total_b = old_a[lane] + cost_a[lane], old_b[lane] + cost_b[lane]
            odd = total_b < total_a
            total[lane] = total_b if odd else total_a
            decisions[lane] |= mark if odd else marks[0] ^ marks[0]


@numba.njit(cache=True, nogil=True, inline="always")
def _back(values, decisions, count, taps0, taps1, states, codes):  # type: ignore[no-untyped-def]  # numba infers the types
    """One row back along the best paths, which end in `states`; writes their codes."""
    for lane in range(values.size):
        state = states[lane]
        parity = np.int32(shr32(np.uint32(decisions[lane]), np.uint32(state)) & np.uint32(1))
        state = np.int32(_source(state, parity, count, taps0, taps1))
        quantiser = np.int32(state & 1)
        value = values[lane]
        offset = np.float32(2 - 2 * parity + quantiser)
        code = np.int32(2 * np.int32((abs(value) + offset) * np.float32(0.25)) + parity)
        code = np.int32(-code if value < 0 else code)
        codes[lane] = np.int16(2 * code + quantiser)
        states[lane] = state


@numba.njit(cache=True, nogil=True)
def search(grid, classes, lanes, taps0, taps1, penalties, marks, codes):  # type: ignore[no-untyped-def]  # numba infers the types
    """The path with the least sum of squared distances and penalties, by Viterbi.

    A block's path is settled when `AHEAD` more rows were searched; the search then goes on from the block's end.

    Args:
        grid: Shape (n,), float32, at most `PEAK` in magnitude.
        classes: Shape (n,), uint8.
        lanes: 1 to n.
        taps0: Of the trellis, int32.
        taps1: Of the trellis, int32.
        penalties: Shape (classes, cells, 4), float32: of the nearest code of every subset, which is the same for all
            magnitudes with the same whole part, their cell.
        marks: Shape (states,): 1 << state, as unsigned integers that hold them.
        codes: Shape (n,), int16: takes the codes, times 2, plus the quantiser.
    """
    rows, count = (grid.size + lanes - 1) // lanes, np.int32(marks.size)
    cells, table = np.uint32(penalties.shape[1]), penalties.reshape(-1, 4)
    totals = np.empty((2, marks.size, lanes), np.float32)
    costs, picked = np.empty((4, lanes), np.float32), np.empty((4, lanes), np.float32)
    indices = np.empty(lanes, np.uint32)
    decisions = np.empty((BLOCK + AHEAD, lanes), marks.dtype)
    starts, states = np.zeros(lanes, np.int32), np.empty(lanes, np.int32)
    unused = np.empty(lanes, np.int16)
    for first in range(0, rows, BLOCK):
        searched = min(BLOCK + AHEAD, rows - first)
        totals[:] = _FAR
        for lane in range(lanes):
            totals[0, starts[lane], lane] = 0
        for row in range(searched):
            start = (first + row) * lanes
            part = grid[start : start + lanes]
            old, new = totals[row & 1], totals[1 - (row & 1)]
            if part.size < lanes:
                new[:] = old
            _branches(part, classes[start : start + lanes], cells, table, indices, picked, costs)
            _step(marks, taps0, taps1, costs, part.size, old, new, decisions[row])
        for lane in range(lanes):
            states[lane] = np.argmin(totals[searched & 1, :, lane])
        for row in range(searched - 1, -1, -1):
            start = (first + row) * lanes
            out = codes[start : start + lanes] if row < BLOCK else unused
            _back(grid[start : start + lanes], decisions[row], count, taps0, taps1, states, out)
            if row == BLOCK:
                starts[:] = states


@numba.njit(cache=True, nogil=True)
def guess(grid, classes, counts):  # type: ignore[no-untyped-def]  # numba infers the types
    """Count as `count` the codes that either quantiser alone would give all values."""
    for at in range(grid.size):
        value, first = abs(grid[at]), 2 * np.int64(classes[at])
        counts[first, np.int64(value * np.float32(0.5) + np.float32(0.5))] += 1
        counts[first + 1, np.int64(value * np.float32(0.5) + np.float32(1)) if value >= np.float32(0.5) else 0] += 1


@numba.njit(cache=True, nogil=True)
def log2(value):  # type: ignore[no-untyped-def]  # numba infers the types
    """log2 of a positive number to within 1e-8, by sums and products alone: the same on every machine."""
    x, whole = math.frexp(value)
    if x < _ROOT:
        x, whole = x * 2, whole - 1
    s = (x - 1) / (x + 1)
    t = s * s
    return whole + s * (SERIES[0] + t * (SERIES[1] + t * (SERIES[2] + t * (SERIES[3] + t * SERIES[4]))))


@numba.njit(cache=True, nogil=True)
def penalise(counts, weight, penalties):  # type: ignore[no-untyped-def]  # numba infers the types
    """Code lengths after `counts`, times `weight`, as `search` takes them.

    A code's share is the mean count of those at most an eighth of its magnitude away, and a 64th; signs take a bit.
    """
    size = counts.shape[1]
    lengths, sums = np.empty(size), np.zeros(size + 1, np.int64)
    for kind in range(counts.shape[0]):
        quantiser = kind & 1
        for code in range(size):
            sums[code + 1] = sums[code] + counts[kind, code]
        total = log2(64.0 * (sums[size] + 1))
        for code in range(size):
            low, high = code - code // 8, min(code + code // 8, size - 1) + 1
            share = 64 * (sums[high] - sums[low]) + high - low
            lengths[code] = total + log2(np.float64(high - low)) - log2(np.float64(share)) + (code > 0)
        for parity in range(2):
            out = penalties[kind >> 1, :, 2 * quantiser + parity]
            for cell in range(out.size):
                out[cell] = weight * lengths[2 * ((cell + 2 - 2 * parity + quantiser) >> 2) + parity]


@numba.njit(cache=True, nogil=True)
def count(codes, classes, counts):  # type: ignore[no-untyped-def]  # numba infers the types
    """Add to `counts`, shape (2 * classes, magnitudes), the magnitudes of codes by class and quantiser."""
    for at in range(codes.size):
        code = np.int32(codes[at])
        counts[2 * np.int64(classes[at]) + (code & 1), abs(code >> 1)] += 1


@numba.njit(cache=True, nogil=True, inline="always")
def _multiple(code):  # type: ignore[no-untyped-def]  # numba infers the types
    """What a code, times 2, plus the quantiser, stands for in steps."""
    quantiser, code = code & 1, code >> 1
    return 2 * code - (quantiser if code > 0 else -quantiser if code < 0 else 0)


@numba.njit(cache=True, nogil=True)
def fit(grid, length, codes, products, squares):  # type: ignore[no-untyped-def]  # numba infers the types
    """Of every group, the sum of values times their multiples, and of squared multiples; in 16 sums as `measure`."""
    sums, others = np.empty(_SUMS), np.empty(_SUMS)
    for group in range(products.size):
        start, end = group * length, min((group + 1) * length, grid.size)
        sums[:] = 0
        others[:] = 0
        whole = start + (end - start) // _SUMS * _SUMS
        for first in range(start, whole, _SUMS):
            part, here = grid[first : first + _SUMS], codes[first : first + _SUMS]
            for lane in range(_SUMS):
                multiple = np.float64(_multiple(np.int32(here[lane])))
                sums[lane] += np.float64(part[lane]) * multiple
                others[lane] += multiple * multiple
        for at in range(whole, end):
            multiple = np.float64(_multiple(np.int32(codes[at])))
            sums[at - whole] += np.float64(grid[at]) * multiple
            others[at - whole] += multiple * multiple
        product, square = 0.0, 0.0
        for lane in range(_SUMS):
            product += sums[lane]
            square += others[lane]
        products[group], squares[group] = product, square


@numba.njit(cache=True, nogil=True)
def survey(codes, classes, lengths):  # type: ignore[no-untyped-def]  # numba infers the types
    """Add to `lengths`, shape (2 * classes,), the codes by class and quantiser; the largest magnitude of a code."""
    largest = np.int32(0)
    for at in range(codes.size):
        code = np.int32(codes[at])
        lengths[2 * np.int64(classes[at]) + (code & 1)] += 1
        largest = max(largest, abs(code >> 1))
    return largest


@numba.njit(cache=True, nogil=True)
def part(codes, classes, starts, zero, out):  # type: ignore[no-untyped-def]  # numba infers the types
    """Write codes plus `zero`, those of each class and quantiser together, where the `starts` say, which move on."""
    for at in range(codes.size):
        code = np.int32(codes[at])
        kind = 2 * np.int64(classes[at]) + (code & 1)
        out[starts[kind]] = np.uint32((code >> 1) + zero)
        starts[kind] += 1


@numba.njit(cache=True, nogil=True)
def join(codes, classes, starts, zero, lanes, taps0, taps1, out):  # type: ignore[no-untyped-def]  # numba infers the types
    """The inverse of `part`: walk the trellis and write what the codes stand for, in steps, to `out`.

    Args:
        codes: Shape (n,), uint32.
        classes: Shape (n,), uint8.
        starts: Shape (2 * classes,), 0 to n: moved on to the ends, which are others if the codes are no walk's.
        zero: The code for 0, int32.
        lanes: 1 to n.
        taps0: As `search`.
        taps1: As `search`.
        out: Shape (n,), float32.
    """
    states, row = np.zeros(lanes, np.int32), np.empty(lanes, np.uint32)
    last = np.int64(codes.size - 1)
    for start in range(0, codes.size, lanes):
        here, kinds = out[start : start + lanes], classes[start : start + lanes]
        for lane in range(here.size):
            kind = 2 * np.int64(kinds[lane]) + np.int64(states[lane] & 1)
            row[lane] = codes[min(starts[kind], last)]
            starts[kind] += 1
        for lane in range(here.size):
            state, code = states[lane], np.int32(np.int32(row[lane]) - zero)
            here[lane] = np.float32(_multiple(np.int32(2 * code + (state & 1))))
            states[lane] = follow(state, np.int32(code & 1), taps0, taps1)


@numba.njit(cache=True, nogil=True)
def scale(values, length, steps):  # type: ignore[no-untyped-def]  # numba infers the types
    """Multiply every run of `length` values with its step, in place; what would be infinite becomes the largest."""
    for group in range(steps.size):
        here, step = values[group * length : (group + 1) * length], steps[group]
        for at in range(here.size):
            here[at] = min(max(here[at] * step, -_LARGEST), _LARGEST)
