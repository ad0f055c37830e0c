"""Pure NumPy twins of `trellis_kernels` and of the loops in `trellis_classes`; slow, plain, and equal bit for bit."""

from itertools import pairwise

import numpy as np

from tightwire.arrays import AnyArray, Bytes8, Flat, Floats, Ints
from tightwire.codecs import trellis_classes as classes_of
from tightwire.codecs.trellis import Codes, Trellis
from tightwire.codecs.trellis_kernels import AHEAD, BLOCK, PEAK, SERIES
from tightwire.wire.packing import Codes as Packed

_OFFSETS = np.array([2, 0, 3, 1])


def to_grid(values: Flat, length: int, inverses: Floats) -> Flat:
    """The twin of `trellis_kernels.to_grid`."""
    scaled = (values * np.repeat(inverses, length)[: values.size]).astype(np.float32)
    grid: Flat = np.clip(scaled, -PEAK, PEAK)
    return grid


def sample(values: AnyArray, size: int) -> AnyArray:
    """The twin of `trellis_kernels.sample`."""
    seen: AnyArray = values[np.arange(size) * values.size // size]
    return seen


def nearest(magnitudes: AnyArray) -> Ints:
    """Magnitudes of the codes of the nearest multiple in every subset, shape (..., 4)."""
    h = ((magnitudes[..., None] + _OFFSETS.astype(np.float32)) * np.float32(0.25)).astype(np.int64)
    codes: Ints = 2 * h + np.arange(4) % 2
    return codes


def multiples(codes: AnyArray, quantisers: AnyArray) -> AnyArray:
    """What codes stand for, in steps."""
    found: AnyArray = 2 * codes - quantisers * np.sign(codes)
    return found


def follow(states: Ints, parities: Ints, trellis: Trellis) -> Ints:
    """The twin of `trellis_kernels.follow`."""
    following: Ints = states >> 1 ^ (states & 1) * int(trellis.taps0) ^ parities * int(trellis.taps1)
    return following


def search(grid: Flat, classes: Bytes8, lanes: int, trellis: Trellis, penalties: AnyArray) -> Codes:
    """The twin of `trellis_kernels.search`."""
    rows = -(-grid.size // lanes)
    padded = np.full(rows * lanes, np.nan, np.float32)
    padded[: grid.size] = grid
    kinds = np.zeros(rows * lanes, np.int64)
    kinds[: grid.size] = classes
    found = np.zeros((rows, lanes), np.int16)
    start = np.zeros(lanes, np.int64)
    for first in range(0, rows, BLOCK):
        here = padded.reshape(rows, lanes)[first : first + BLOCK + AHEAD]
        theirs = kinds.reshape(rows, lanes)[first : first + BLOCK + AHEAD]
        codes, states = _settle(here, theirs, start, trellis, penalties)
        found[first : first + BLOCK] = codes[:BLOCK]
        if len(here) > BLOCK:
            start = states[BLOCK]
    return found.ravel()[: grid.size]


def _settle(values: Flat, classes: Ints, start: Ints, trellis: Trellis, penalties: AnyArray) -> tuple[Codes, Ints]:
    """Codes of the best paths through all rows from the states `start`, and the states before each row."""
    rows, lanes = values.shape
    sources = [
        [
            state * 2 + parity
            for parity in (0, 1)
            for state in range(trellis.states)
            if _leads(state, parity, to, trellis)
        ]
        for to in range(trellis.states)
    ]
    totals = np.full((trellis.states, lanes), 1e30, np.float32)
    totals[start, np.arange(lanes)] = 0
    odd = np.zeros((rows, trellis.states, lanes), bool)
    for row, magnitudes in enumerate(np.abs(values)):
        live = ~np.isnan(magnitudes)
        magnitudes = np.where(live, magnitudes, np.float32(0))
        codes = nearest(magnitudes)
        distances = magnitudes[:, None] - multiples(codes, np.array([0, 0, 1, 1])).astype(np.float32)
        costs = distances * distances + penalties[classes[row], magnitudes.astype(np.int64)]
        new = totals.copy()
        for to, (even_source, odd_source) in enumerate(sources):
            subset = even_source & 2
            even_total = totals[even_source >> 1] + costs[:, subset]
            odd_total = totals[odd_source >> 1] + costs[:, subset + 1]
            odd[row, to] = odd_total < even_total
            new[to] = np.where(odd[row, to], odd_total, even_total)
        totals = np.where(live, new, totals)
    table = np.array(sources)
    states = np.zeros((rows + 1, lanes), np.int64)
    states[rows] = totals.argmin(axis=0)
    out = np.zeros((rows, lanes), np.int16)
    for row in range(rows - 1, -1, -1):
        live = ~np.isnan(values[row])
        entry = table[states[row + 1], odd[row, states[row + 1], np.arange(lanes)].astype(np.int64)]
        states[row] = np.where(live, entry >> 1, states[row + 1])
        magnitudes = np.where(live, np.abs(values[row]), np.float32(0))
        codes = np.take_along_axis(nearest(magnitudes), entry[:, None] & 3, axis=1)[:, 0]
        out[row] = 2 * np.where(values[row] < 0, -codes, codes) + (entry >> 1 & 1)
    return out, states


def _leads(state: int, parity: int, to: int, trellis: Trellis) -> bool:
    return bool(follow(np.array(state), np.array(parity), trellis) == to)


def guess(grid: Flat, classes: Bytes8, kinds: int, size: int) -> Ints:
    """The twin of `trellis_kernels.guess`, for `kinds` classes and `size` magnitudes."""
    halves = np.abs(grid) * np.float32(0.5)
    first = (halves + np.float32(0.5)).astype(np.int64)
    second = np.where(halves >= 0.25, (halves + np.float32(1)).astype(np.int64), 0)
    return np.stack(
        [np.bincount(codes[classes == kind], minlength=size) for kind in range(kinds) for codes in (first, second)]
    )


def count(codes: Codes, classes: Bytes8, kinds: int, size: int) -> Ints:
    """The twin of `trellis_kernels.count`, for `kinds` classes and `size` magnitudes."""
    return np.stack(
        [
            np.bincount(np.abs(codes[there].astype(np.int64) >> 1), minlength=size)
            for there in _kinds(codes, classes, kinds)
        ]
    )


def _kinds(codes: Codes, classes: Bytes8, kinds: int) -> list[AnyArray]:
    """Where each class and quantiser is."""
    return [(classes == kind) & (codes & 1 == quantiser) for kind in range(kinds) for quantiser in (0, 1)]


def log2(values: AnyArray) -> Floats:
    """The twin of `trellis_kernels.log2`."""
    x, whole = np.frexp(np.asarray(values, np.float64))
    low = x < np.sqrt(0.5)
    x, whole = np.where(low, x * 2, x), np.where(low, whole - 1, whole)
    s = (x - 1) / (x + 1)
    t = s * s
    logarithms: Floats = whole + s * (SERIES[0] + t * (SERIES[1] + t * (SERIES[2] + t * (SERIES[3] + t * SERIES[4]))))
    return logarithms


def penalise(counts: Ints, weight: float, cells: int) -> AnyArray:
    """The twin of `trellis_kernels.penalise`."""
    codes = np.arange(counts.shape[1])
    low, high = codes - codes // 8, np.minimum(codes + codes // 8, codes.size - 1) + 1
    sums = np.concatenate([np.zeros((len(counts), 1), np.int64), counts.cumsum(axis=1)], axis=1)
    shares = 64 * (sums[:, high] - sums[:, low]) + high - low
    lengths = log2(64.0 * (sums[:, -1:] + 1)) + log2(high - low) - log2(shares) + (codes > 0)
    reached = nearest(np.arange(cells).astype(np.float32))
    penalties = np.empty((len(counts) // 2, cells, 4), np.float32)
    for kind in range(len(penalties)):
        for subset in range(4):
            penalties[kind, :, subset] = weight * lengths[2 * kind + subset // 2][reached[:, subset]]
    return penalties


def part(codes: Codes, classes: Bytes8, kinds: int, zero: int) -> Packed:
    """The twin of `trellis_kernels.part`."""
    together = np.concatenate([codes[there] for there in _kinds(codes, classes, kinds)])
    parted: Packed = ((together.astype(np.int64) >> 1) + zero).astype(np.uint32)
    return parted


def join(codes: Packed, classes: Bytes8, starts: Ints, zero: int, lanes: int, trellis: Trellis) -> Flat:
    """The twin of `trellis_kernels.join`, for codes that are a walk's."""
    states, taken, out = np.zeros(lanes, np.int64), starts.copy(), np.empty(codes.size, np.float32)
    for start in range(0, codes.size, lanes):
        here = states[: codes.size - start]
        kinds = 2 * classes[start : start + lanes].astype(np.int64) + (here & 1)
        row = np.empty(here.size, np.int64)
        for kind in np.unique(kinds):
            there = kinds == kind
            row[there] = codes[taken[kind] : taken[kind] + np.count_nonzero(there)].astype(np.int64) - zero
            taken[kind] += np.count_nonzero(there)
        out[start : start + lanes] = multiples(row, here & 1)
        states[: here.size] = follow(here, row & 1, trellis)
    return out


def fit(grid: Flat, length: int, codes: Codes) -> tuple[Floats, Floats]:
    """The twin of `trellis_kernels.fit`."""
    wide = codes.astype(np.int64)
    found = multiples(wide >> 1, wide & 1).astype(np.float64)
    products, squares = [], []
    for start in range(0, grid.size, length):
        values, here = grid[start : start + length].astype(np.float64), found[start : start + length]
        products.append(_by_lanes(values * here))
        squares.append(_by_lanes(here * here))
    return np.array(products), np.array(squares)


def _by_lanes(terms: Floats) -> float:
    lanes = [0.0] * 16
    for at, term in enumerate(terms.tolist()):
        lanes[at % 16] += term
    total = 0.0
    for lane in lanes:
        total += lane
    return total


def scale(values: Flat, length: int, steps: Flat) -> Flat:
    """The twin of `trellis_kernels.scale`."""
    with np.errstate(over="ignore"):
        scaled = values * np.repeat(steps, length)[: values.size]
    largest = np.finfo(np.float32).max
    clipped: Flat = np.clip(scaled, -largest, largest)
    return clipped


def column_squares(values: Flat, columns: int) -> Floats:
    """The twin of `trellis_classes.column_squares`."""
    sums: Floats = np.zeros(columns)
    for row in values.reshape(-1, columns).astype(np.float64):
        sums += row * row
    return sums


def levels_of(spread: Floats) -> Bytes8:
    """The twin of `trellis_classes.levels_of`."""
    levels = np.zeros(spread.size, np.uint8)
    some = spread > 0
    halves = np.floor(2 * log2(spread[some] / spread.max()) + 0.5)
    levels[some] = np.maximum(classes_of.TOP + halves, 0)
    return levels


def histogram(grid: Flat, rows: Bytes8, columns: Bytes8, seen: int, size: int) -> Ints:
    """The twin of `trellis_classes.histogram`, for `size` magnitudes."""
    at = np.arange(seen) * grid.size // seen
    levels = rows[at // columns.size].astype(np.int64) + columns[at % columns.size]
    codes = (np.abs(grid[at]) * np.float32(0.5) + np.float32(0.5)).astype(np.int64)
    counts = np.zeros((classes_of.LEVELS, size), np.int64)
    np.add.at(counts, (levels, codes), 1)
    return counts


def _cost(counts: Ints, weight: float) -> float:
    present = counts[counts > 0]
    if present.size == 0:
        return 0.0
    bits = 0.0
    for each, logarithm in zip(present.tolist(), log2(present).tolist(), strict=True):
        bits -= each * logarithm
    total = float(present.sum())
    return weight * (bits + total * float(log2(np.array(total)))) + 2 * 8.0 * (present.size + 2)


def merge(counts: Ints, weight: float) -> tuple[float, Bytes8]:
    """The twin of `trellis_classes.merge`: the bits, and the classes."""
    groups = [[level] for level in range(len(counts))]

    def cost(levels: list[int]) -> float:
        return _cost(counts[levels].sum(axis=0), weight)

    while True:
        saved = [cost(a) + cost(b) - cost(a + b) for a, b in pairwise(groups)]
        if not saved or max(saved) < 0:
            break
        last = max(range(len(saved)), key=lambda at: (saved[at], at))
        groups[last : last + 2] = [groups[last] + groups[last + 1]]
    bits = 0.0
    for levels in groups:
        bits += cost(levels)
    return bits, np.repeat(np.arange(len(groups)), [len(levels) for levels in groups]).astype(np.uint8)


def spread_out(rows: Bytes8, columns: Bytes8, table: Bytes8, n: int) -> Bytes8:
    """The twin of `trellis_classes.spread_out`."""
    levels = rows[:, None].astype(np.int64) + columns
    spread: Bytes8 = table[levels].ravel()[:n]
    return spread
