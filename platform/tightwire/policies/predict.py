"""What a frame will weigh and how far off it will be, predicted from an update's statistics alone.

For the chains ``topk(density) | uniform(bits) | rans``, on a grid of bits and densities. A prediction is not a bill:
cost is the length of the frame. Envelope, scales and packed codes are known exactly; indices are expected for positions
independent of one another; entropy-coded codes take their expected empirical entropy, plus a table whose size is a
formula fitted to that coder.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numba
import numpy as np

from tightwire.arrays import AnyArray, Floats, Ints
from tightwire.codecs.codec import Codec, small
from tightwire.codecs.topk import TopK
from tightwire.policies.levels import TABLES
from tightwire.policies.lines import Entropy, quantised
from tightwire.policies.stats import UpdateStats
from tightwire.policies.sweep import codes, errors, opened
from tightwire.wire.frame import envelope_length
from tightwire.wire.indices import golomb_parameter
from tightwire.wire.packing import packed_length
from tightwire.wire.rans import MAX_BITS
from tightwire.wire.schema import Schema

SCALES = 8
"""Bytes of a quantiser's range."""
_FLUSH = 3.0
"""Bytes that an entropy coder takes besides table, entropy and length: a head, the ends of its table and state."""


@dataclass(frozen=True, slots=True, eq=False)
class Known:
    """What all updates of one schema share, before any of them is seen."""

    tensors: Ints
    """Which of `UpdateStats.sizes` are compressed; the others are small and sent plain."""
    kept: Ints
    """Values kept, shape (compressed tensors, densities)."""
    part: Floats
    """Bytes of each compressed tensor but its codes and their table, shape (compressed tensors, densities)."""
    plain: int
    """Bytes of the tensors that are sent plain, and of the frame's authentication."""
    given: Floats
    """All bytes but the codes and their tables, of frames with one chain, shape (bits, densities)."""


@dataclass(frozen=True, slots=True, eq=False)
class Grid:
    """Predictions of frames with one chain for all tensors, of shape (bits, densities)."""

    bytes: Floats
    """Expected length of the frame, and of its authentication where there is any."""
    error: Floats
    """Expected squared error of what is decoded."""


@dataclass(frozen=True, slots=True, eq=False)
class Table:
    """Predictions for each compressed tensor, of shape (compressed tensors, bits, densities)."""

    bytes: Floats
    """Expected bytes of the tensor in a frame: scales, indices, codes and their table."""
    error: Floats
    """Expected squared error."""


@dataclass(frozen=True, slots=True)
class Point:
    """A point of the grid, and what is predicted for it."""

    row: int
    """Which bit width."""
    column: int
    """Which density."""
    bytes: float
    error: float
    free: bool
    """Whether no point of smaller error was too long."""


def predict(
    stats: UpdateStats,
    bits: Sequence[int],
    densities: Sequence[float],
    entropy: Entropy,
    wanted: Sequence[tuple[int, float]] | None = None,
) -> Grid:
    """Predict the whole grid, or some of its points.

    Args:
        stats: Of the vector that would be encoded.
        bits: Bit widths, 1 to 16.
        densities: Kept fractions in (0, 1], rising.
        entropy: The entropy coder.
        wanted: The points, each its bit width and density; None for all. What stands at the others means nothing.
    """
    table = predict_tensors(stats, bits, densities, entropy, wanted)
    known = known_of(stats.schema, tuple(bits), tuple(densities), entropy, stats.tag)
    return Grid(known.given + (table.bytes - known.part[:, None, :]).sum(axis=0), table.error.sum(axis=0))


def predict_tensors(
    stats: UpdateStats,
    bits: Sequence[int],
    densities: Sequence[float],
    entropy: Entropy,
    wanted: Sequence[tuple[int, float]] | None = None,
) -> Table:
    """Predict the grid, tensor by tensor; see `predict`."""
    known = known_of(stats.schema, tuple(bits), tuple(densities), entropy, stats.tag)
    mask = _mask(tuple(bits), tuple(densities), None if wanted is None else tuple(wanted))
    coded, error = _table(
        known.tensors, widths_of(tuple(bits)), known.kept, mask, entropy == "rans", *columns(stats), TABLES
    )
    return Table(coded + known.part[:, None, :], error)


def best_within(
    stats: UpdateStats, bits: Sequence[int], densities: Sequence[float], entropy: Entropy, allowed: Floats
) -> Point | None:
    """The grid point of smallest expected error whose frame keeps within its limit; of equals, that of fewest bytes.

    It is found without the codes of the whole grid: errors come first, and a point's bytes are worked out only where
    its error would be the best yet. That more bits or a larger density below 1 takes more bytes is made use of.

    Args:
        stats: As `predict`.
        bits: As `predict`, rising.
        densities: As `predict`.
        entropy: As `predict`.
        allowed: Longest frame, in bytes, at each density.

    Returns:
        None where nothing is short enough.
    """
    known = known_of(stats.schema, tuple(bits), tuple(densities), entropy, stats.tag)
    options = entropy == "rans", densities[-1] == 1
    row, column, length, error, free = _search(
        known.tensors, widths_of(tuple(bits)), known.kept, known.given, allowed, *options, *columns(stats), TABLES
    )
    if row < 0 or error > 0:
        return None if row < 0 else Point(row, column, length, error, free)
    ends = [
        (shortest_frame(stats, bits, densities[at : at + 1], entropy), at) for at in sorted({0, len(densities) - 1})
    ]
    length, column = min((length, at) for length, at in ends if length <= allowed[at])
    return Point(0, column, length, 0.0, free)


def shortest_frame(stats: UpdateStats, bits: Sequence[int], densities: Sequence[float], entropy: Entropy) -> float:
    """Bytes of the shortest frame of the grid, which is at one of its ends."""
    return float(predict(stats, bits[:1], sorted({densities[0], densities[-1]}), entropy).bytes.min())


def columns(stats: UpdateStats) -> tuple[Ints, Ints, Ints, Floats, Floats, Floats, Floats]:
    """What compiled code wants of the statistics."""
    return stats.starts, stats.cells, stats.counts, stats.sums, stats.squares, stats.low, stats.high


@lru_cache(maxsize=64)
def widths_of(bits: tuple[int, ...]) -> Ints:
    """The bit widths as compiled code wants them."""
    return np.array(bits, np.int64)


@lru_cache(maxsize=64)
def _mask(
    bits: tuple[int, ...], densities: tuple[float, ...], wanted: tuple[tuple[int, float], ...] | None
) -> AnyArray:
    return np.array([[wanted is None or (b, d) in wanted for d in densities] for b in bits])


@lru_cache(maxsize=64)
def known_of(
    schema: Schema, bits: tuple[int, ...], densities: tuple[float, ...], entropy: Entropy, tag: int = 0
) -> Known:
    """What is known before any update of that schema is seen; arguments as `predict`, and `UpdateStats.tag`."""
    sizes = [tensor.size for tensor in schema.tensors if tensor.size]
    tensors = [at for at, size in enumerate(sizes) if size >= small(schema.size)]
    kept = np.array([[TopK(density).kept(sizes[at]) for density in densities] for at in tensors], np.int64)
    kept = kept.reshape(len(tensors), len(densities))
    part = np.array(
        [[SCALES + _index(k, sizes[at]) for k in row] for at, row in zip(tensors, kept.tolist(), strict=True)]
    )
    part = part.reshape(kept.shape)
    plain = 4 * (sum(sizes) - sum(sizes[at] for at in tensors)) + tag
    envelopes = np.array(
        [
            [envelope_length(Codec.parse(quantised(width, density, entropy)).compact) for density in densities]
            for width in bits
        ]
    )
    return Known(np.array(tensors, np.int64), kept, part, plain, envelopes + plain + part.sum(axis=0))


def _index(k: int, n: int) -> float:
    """Bytes of the positions of k of n values under `tightwire.wire.indices`."""
    if k == n:
        return 0.0
    density = k / n
    likely = golomb_parameter(density)
    golomb: float = min(
        k * parameter / 8 + (k / (1 - (1 - density) ** (1 << parameter))) / 8 + 0.9
        for parameter in range(max(0, likely - 1), likely + 2)
    )
    return 1 + min(golomb, packed_length(n, 1), packed_length(k, (n - 1).bit_length()))


@numba.njit(cache=True, nogil=True, error_model="numpy")
def _coded(kept, width, entropy, levels):  # type: ignore[no-untyped-def]  # numba infers them
    """Bytes of one tensor's codes and table under `tightwire.wire.rans`.

    The table takes, in bits, for m occurring levels out of 2**bits and k values, 1.2 m + 0.15 m r + sqrt(m) (2 r +
    8.1 e) - 15 with r = log2(k / m) and e = log2(2**bits / m): least squares over Gaussian, Laplace, Student and
    half-zero Gaussian samples of 50 to 100,000 values under earlier tables, together with `_FLUSH` and the length that
    went with them. It serves the present ones as well (docs/policies.md). No count of bits would do: the coder groups
    levels and coarsens shares where a finer table would not pay.
    """
    levels = min(max(levels, 1.0), float(kept))
    values = math.log2(kept / levels)
    empty = width - math.log2(levels)
    table = levels * (1.2 + 0.15 * values) + math.sqrt(levels) * (2 * values + 8.1 * empty) - 15
    length = (entropy + max(table, 0.0)) / 8
    length += _FLUSH + 1 + (length >= 2**7) + (length >= 2**14) + (length >= 2**21)
    return min(length, (kept * width + 7) // 8 + 1.0)


@numba.njit(cache=True, nogil=True, error_model="numpy")
def code_bytes(rans, width, kept, point, tensor, cut, levels, doubled, table):  # type: ignore[no-untyped-def]  # so
    """Expected bytes of one tensor's codes and their table at one density."""
    if not rans:
        return float((kept * width + 7) // 8)
    if width > MAX_BITS:
        return (kept * width + 7) // 8 + 1.0
    entropy, used = codes(tensor, cut, point, kept, levels, doubled, table)
    return _coded(kept, width, entropy, used)


@numba.njit(cache=True, nogil=True, error_model="numpy")
def _table(tensors, bits, kept, wanted, rans, starts, cells, counts, sums, squares, low, high, table):  # type: ignore[no-untyped-def]  # so
    coded = np.zeros((len(tensors), len(bits), kept.shape[1]))
    error = np.zeros(coded.shape)
    parts = opened(tensors, kept, starts, cells, counts, sums, squares, low, high)
    for row in range(len(bits)):
        width = bits[row]
        levels, doubled = np.empty(1 << width), np.empty(1 << width)
        for at, (part, cut) in enumerate(parts):
            first, last = 0, kept.shape[1]
            while first < last and not wanted[row, first]:
                first += 1
            while last > first and not wanted[row, last - 1]:
                last -= 1
            errors(part, cut, width, first, last, np.bool_(False), error[at, row])
            for point in range(first, last):
                if not wanted[row, point]:
                    continue
                coded[at, row, point] = code_bytes(
                    rans, width, kept[at, point], point, part, cut, levels, doubled, table
                )
    return coded, error


@numba.njit(cache=True, nogil=True, error_model="numpy")
def _search(  # type: ignore[no-untyped-def]  # numba infers them
    tensors, bits, kept, given, allowed, rans, dense, starts, cells, counts, sums, squares, low, high, table
):
    """Row and column (-1 for none), bytes, error, and whether nothing was too long; see `best_within`.

    Rows are visited from a likely one outwards, and a direction is given up after two that did not help. `dense` says
    whether the last density is 1, where no indices are sent, so that it may take fewer bytes than the last but one.
    """
    rows, last = len(bits), kept.shape[1] - 1
    parts = opened(tensors, kept, starts, cells, counts, sums, squares, low, high)
    values = kept.sum(axis=0)
    dropped = np.zeros(last + 1)
    for _, cut in parts:
        dropped += cut[2]
    error = np.empty(last + 1)
    inner = last if dense else last + 1
    stops = np.full(rows, inner)  # of the densities below 1, those from here on are too long
    whole = np.full(rows, dense)  # density 1 may be short enough
    floor = np.zeros((rows, last + 1))  # codes take so many bytes at least
    rate = 0.0
    found_row, found, found_bytes, best, refused = -1, -1, 0.0, np.inf, False
    likely = 3 + min(6 * max(allowed[last], 0.0) / max(values[last], 1), 13.0)
    middle = 0
    while middle + 1 < rows and bits[middle + 1] <= likely:
        middle += 1
    for step in (1, -1):
        row = middle if step > 0 else middle - 1
        useless = 0
        while 0 <= row < rows and useless < 2:
            width = bits[row]
            levels, doubled = np.empty(1 << width), np.empty(1 << width)
            start = 0
            while start < stops[row] and dropped[start] >= best:
                start += 1
            error[:] = 0
            for part, cut in parts:
                errors(part, cut, width, start, max(start, stops[row]), whole[row], error)
            useless += 1
            while True:
                point = -1
                for p in range(start, stops[row]):
                    if error[p] < best and (point < 0 or error[p] < error[point]):
                        point = p
                if whole[row] and error[last] < best and (point < 0 or error[last] < error[point]):
                    point = last
                elif point < 0:
                    break
                elif rate > 0:
                    while point > start and given[row, point] + rate * values[point] > allowed[point]:
                        point -= 1
                    while error[point] >= best:
                        point += 1
                length = given[row, point] + floor[row, point]
                if length <= allowed[point]:
                    length = given[row, point]
                    for at, (part, cut) in enumerate(parts):
                        if length <= allowed[point]:
                            length += code_bytes(rans, width, kept[at, point], point, part, cut, levels, doubled, table)
                    coded = length - given[row, point]
                    rate = max(rate, coded / max(values[point], 1))
                    for other in range(row, rows):
                        for p in range(point, last + 1):
                            floor[other, p] = max(floor[other, p], coded)
                if length <= allowed[point]:
                    best, found_row, found, found_bytes = error[point], row, point, length
                    start = max(start, point + 1)
                    useless = 0
                elif whole[row] and point == last:
                    whole[row:] = False
                    refused = True
                else:
                    for other in range(row, rows):
                        stops[other] = min(stops[other], point)
                    refused = True
            row += step
    return found_row, found, found_bytes, best, not refused
