"""Pure NumPy twins of `tightwire.codecs.trellis_kernels`; slow, plain, and equal bit for bit."""

import numpy as np

from tightwire.arrays import AnyArray, Flat, Floats, Ints
from tightwire.codecs.trellis import Codes, Trellis
from tightwire.codecs.trellis_kernels import AHEAD, BLOCK, PEAK
from tightwire.wire.packing import Codes as Packed

_OFFSETS = np.array([2, 0, 3, 1])


def to_grid(values: Flat, length: int, inverses: Floats) -> Flat:
    """The twin of `trellis_kernels.to_grid`."""
    scaled = (values * np.repeat(inverses, length)[: values.size]).astype(np.float32)
    grid: Flat = np.clip(scaled, -PEAK, PEAK)
    return grid


def sample(grid: Flat, size: int) -> Flat:
    """The twin of `trellis_kernels.sample`."""
    seen: Flat = grid[np.arange(size) * grid.size // size]
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


def search(grid: Flat, lanes: int, trellis: Trellis, penalties: AnyArray) -> Codes:
    """The twin of `trellis_kernels.search`."""
    rows = -(-grid.size // lanes)
    padded = np.full(rows * lanes, np.nan, np.float32)
    padded[: grid.size] = grid
    found = np.zeros((rows, lanes), np.int16)
    start = np.zeros(lanes, np.int64)
    for first in range(0, rows, BLOCK):
        here = padded.reshape(rows, lanes)[first : first + BLOCK + AHEAD]
        codes, states = _settle(here, start, trellis, penalties)
        found[first : first + BLOCK] = codes[:BLOCK]
        if len(here) > BLOCK:
            start = states[BLOCK]
    return found.ravel()[: grid.size]


def _settle(values: Flat, start: Ints, trellis: Trellis, penalties: AnyArray) -> tuple[Codes, Ints]:
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
        costs = distances * distances + penalties[magnitudes.astype(np.int64)]
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


def guess(grid: Flat, size: int) -> Ints:
    """The twin of `trellis_kernels.guess`, for `size` magnitudes."""
    magnitudes = np.abs(grid) * np.float32(0.5)
    first = (magnitudes + np.float32(0.5)).astype(np.int64)
    second = np.where(magnitudes >= 0.25, (magnitudes + np.float32(1)).astype(np.int64), 0)
    return np.stack([np.bincount(codes, minlength=size) for codes in (first, second)])


def count(codes: Codes, size: int) -> Ints:
    """The twin of `trellis_kernels.count`, for `size` magnitudes."""
    wide = codes.astype(np.int64)
    return np.stack([np.bincount(np.abs(wide[wide & 1 == quantiser] >> 1), minlength=size) for quantiser in (0, 1)])


def log2(values: AnyArray) -> Floats:
    """The twin of `trellis_kernels.log2`."""
    x, whole = np.frexp(np.asarray(values, np.float64))
    x, result = x * 2, whole - 1.0
    for place in range(1, 13):
        x = x * x
        above = x >= 2
        result = result + np.where(above, 0.5**place, 0)
        x = np.where(above, x * 0.5, x)
    return result


def penalise(counts: Ints, weight: float, cells: int) -> AnyArray:
    """The twin of `trellis_kernels.penalise`."""
    codes = np.arange(counts.shape[1])
    low, high = codes - codes // 8, np.minimum(codes + codes // 8, codes.size - 1) + 1
    sums = np.concatenate([np.zeros((2, 1), np.int64), counts.cumsum(axis=1)], axis=1)
    shares = 64 * (sums[:, high] - sums[:, low]) + high - low
    lengths = log2(64.0 * (high - low) * (sums[:, -1:] + 1)) - log2(shares) + (codes > 0)
    reached = nearest(np.arange(cells).astype(np.float32))
    return np.stack([weight * lengths[subset // 2][reached[:, subset]] for subset in range(4)], axis=1).astype(
        np.float32
    )


def part(codes: Codes, zero: int) -> Packed:
    """The twin of `trellis_kernels.part`."""
    wide = codes.astype(np.int64)
    parted: Packed = ((np.concatenate([wide[wide & 1 == 0], wide[wide & 1 == 1]]) >> 1) + zero).astype(np.uint32)
    return parted


def join(codes: Packed, middle: int, zero: int, lanes: int, trellis: Trellis) -> Flat:
    """The twin of `trellis_kernels.join`, for codes that are a walk's."""
    first, second = codes[:middle].astype(np.int64) - zero, codes[middle:].astype(np.int64) - zero
    states, out = np.zeros(lanes, np.int64), np.empty(codes.size, np.float32)
    for start in range(0, codes.size, lanes):
        here = states[: codes.size - start]
        quantisers, row = here & 1, np.empty(here.size, np.int64)
        ones = np.count_nonzero(quantisers)
        row[quantisers == 0], first = first[: here.size - ones], first[here.size - ones :]
        row[quantisers == 1], second = second[:ones], second[ones:]
        out[start : start + lanes] = multiples(row, quantisers)
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
