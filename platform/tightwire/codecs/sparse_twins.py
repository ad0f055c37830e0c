"""Pure NumPy twins of the sparsifiers' compiled kernels; slow, plain, and equal bit for bit."""

import numpy as np

from tightwire.arrays import Flat, Floats, Ints
from tightwire.codecs.kernels import FOLD, Bits
from tightwire.wire.packing import Codes

_MASK = 2**64 - 1


def select(values: Flat, k: int) -> tuple[Ints, Flat]:
    """The twin of `tightwire.codecs.selection.select`, for values without NaN."""
    chosen = np.sort(np.argsort(-np.abs(values), kind="stable")[:k])
    return chosen, values[chosen]


def rank(raw: Bits, k: int) -> tuple[int, int]:
    """The twin of `tightwire.codecs.selection_kernels.rank`."""
    falling = np.sort(raw & FOLD)[::-1]
    return int(falling[k - 1]), int(np.count_nonzero(falling[:k] == falling[k - 1]))


def place(indices: Ints, values: Flat, n: int) -> Flat:
    """The twin of `tightwire.codecs.sparse_kernels.place`."""
    out = np.zeros(n, np.float32)
    out[indices] = values
    return out


def distances(codes: Codes, zero: int) -> Bits:
    """The twin of `tightwire.codecs.sparse_kernels.distances`."""
    ways = codes.astype(np.int64) - zero
    return np.where(ways < 0, np.abs(ways) - 2**31, ways).astype(np.int32)


def mix64(x: int) -> int:
    """The twin of `tightwire.codecs.sparse_kernels.mix64`."""
    x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9 & _MASK
    x = (x ^ (x >> 27)) * 0x94D049BB133111EB & _MASK
    return x ^ (x >> 31)


def positions(n: int, k: int, seed: int) -> Ints:
    """The twin of `tightwire.codecs.randk.positions`."""
    golden = 0x9E3779B97F4A7C15
    state = mix64((seed + golden) & _MASK)
    drawn: set[int] = set()
    while len(drawn) < (k if k <= n // 2 else n - k):
        state = (state + golden) & _MASK
        drawn.add(mix64(state) * n >> 64)
    marks = np.zeros(n, bool)
    marks[list(drawn)] = True
    return np.flatnonzero(marks if k <= n // 2 else ~marks)


def folded(terms: Floats, lanes: int) -> float:
    """The twin of the compiled sums: term i goes to lane i % lanes, and halves are added until one is left."""
    rows = np.zeros((-(-terms.size // lanes), lanes))
    rows.reshape(-1)[: terms.size] = terms
    sums = np.zeros(lanes)
    for row in rows:
        sums += row
    while sums.size > 1:
        sums = sums[: sums.size // 2] + sums[sums.size // 2 :]
    return float(sums[0])


def mean_magnitude(values: Flat) -> float:
    """The twin of `tightwire.codecs.sparse_kernels.mean_magnitude`."""
    return folded(np.abs(values).astype(np.float64), 32) / values.size


def energies(values: Flat, length: int) -> Floats:
    """The twin of `tightwire.codecs.sparse_kernels.energies`."""
    squares = np.square(values, dtype=np.float64)
    return np.array([folded(squares[start : start + length], 32) for start in range(0, values.size, length)])
