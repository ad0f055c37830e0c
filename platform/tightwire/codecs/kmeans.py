"""The quantiser whose levels are fitted to the values: one-dimensional k-means."""

from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np

from tightwire.arrays import Flat, Ints
from tightwire.codecs import kmeans_kernels as kernels
from tightwire.codecs import lloyd_kernels
from tightwire.codecs.floats import landing
from tightwire.codecs.groups import Per, check_groups, group_count, group_length
from tightwire.codecs.kernels import group_extremes
from tightwire.codecs.stage import Context, Kind, Layout, Plane, Stage, Tally, Target, Undo
from tightwire.errors import CodecError, FrameError
from tightwire.wire import packing
from tightwire.wire.streams import Sink, Source

_FEW = 16
"""Centroids up to which their thresholds fit into registers."""


_PASSES = 8
"""Thresholds in one bin of a grid up to which it is worth while."""


def sample_size(n: int, bits: int) -> int:
    """Of `n` values, how many are looked at for a table of 2**bits centroids: one of 64, within limits.

    On Gaussian values the distortion is then about 3 % at most, 1 % up to 4 bits, above what all values would give.
    """
    least = max(4096, min(512 << bits, 8192), 128 << bits)
    return min(max(n // 64, least), max(16384, 256 << bits))


def most_centroids(length: int, bits: int) -> int:
    """Centroids that a group of `length` values may have: 2**bits, but at least 2, and no longer than its codes."""
    return min(1 << bits, max(2, length * bits // 32))


def fit(plane: Plane, length: int, bits: int) -> tuple[Flat, Ints]:
    """(centroids of all groups, one group after another; how many each group has) for groups of `length` reals."""
    values, n = plane.data, plane.layout.count
    groups, size = group_count(n, length), sample_size(length, bits)
    counts = np.zeros(groups, np.int64)
    table = np.empty(most_centroids(length, bits), np.float32)
    if length > size:
        tables = []
        for group in range(groups):
            part = values[group * length : (group + 1) * length]
            if part.size > size:
                run = lloyd_kernels.RUN
                ends = plane.group_extremes(run) if groups == 1 else group_extremes(part, run)
                counts[group] = lloyd_kernels.lloyd_spotted(part, ends, size, (1 << bits) // 8 + 1, table)
            else:
                most = most_centroids(part.size, bits)
                counts[group] = lloyd_kernels.lloyd(np.sort(part), np.ones(part.size), table[:most])
            if groups == 1:
                return table[: counts[0]], counts
            tables.append(table[: counts[group]].copy())
        return np.concatenate(tables), counts
    found = np.empty(groups * table.size, np.float32)
    whole = n // length
    end = lloyd_kernels.lloyd_rows(np.sort(values[: whole * length].reshape(whole, length)), table, found, counts)
    if whole < groups:
        rest = np.sort(values[whole * length :]).reshape(1, -1)
        end += lloyd_kernels.lloyd_rows(rest, table[: most_centroids(rest.size, bits)], found[end:], counts[whole:])
    return found[:end].copy(), counts


def thresholds_of(tables: Flat) -> Flat:
    """As `lloyd_kernels.thresholds`."""
    found = np.empty(tables.size, np.float32)
    lloyd_kernels.thresholds(tables, found)
    return found


def starts_of(counts: Ints) -> Ints:
    """Where each group's table starts, and where the last ends, shape (groups + 1,)."""
    starts = np.empty(counts.size + 1, np.int64)
    starts[0] = 0
    counts.cumsum(out=starts[1:])
    return starts


def guide(thresholds: Flat) -> tuple[Any, ...] | None:
    """What finds one group's thresholds fast where there are many: the best of three grids; None where none is good."""
    inner = thresholds[:-1]
    sizes = np.sort(np.abs(inner)) * np.float32(0.25)
    best = None
    for offset in (sizes[-1], sizes[sizes.size // 2], sizes[sizes.size // 8]):
        below, edges = np.empty(kernels.BINS, np.uint32), np.empty(kernels.BINS, np.float32)
        most, low, shift = kernels.gridded(inner, offset, below, edges)
        if best is None or most < best[0]:
            best = int(most), offset, np.int32(low), np.int32(shift), below, edges
        if most == 1:
            break
    return best if best is not None and best[0] <= _PASSES else None


@dataclass(frozen=True)
class KMeans(Stage):
    """Quantisation to 2**bits centroids, fitted to the values by Lloyd's algorithm; each goes to the nearest.

    The centroids start as dense as the values are to the power 1/3, and at most 60 rounds of nearest centroid and mean
    follow: over all values of a group, or, of a large one, over one out of each of many stretches and all that are
    beyond those. Deterministic and biased: it wants error feedback. On Gaussian values the squared error is that of
    Lloyd and Max, 0.3634, 0.1175, 0.03455 and 0.0095 of the squared norm for 1 to 4 bits; none is guaranteed. Costs
    `bits` a value, 4 bytes a centroid and one a group. A group has no more centroids than different values, and no
    larger table than codes, but for two centroids.

    Raises:
        CodecError: When bits are out of range, channels and buckets are wanted together, or the bucket is negative.
    """

    bits: int
    """1 to 8."""
    per: Per = "tensor"
    bucket: int = 0
    """Values that share centroids; 0 for none but `per`."""

    name: ClassVar[str] = "kmeans"
    example: ClassVar[str] = "kmeans(4)"
    takes: ClassVar[tuple[Kind, ...]] = ("reals",)
    gives: ClassVar[Kind | None] = "ints"
    family: ClassVar[str] = "quantiser"
    passes: ClassVar[float] = 4.0
    source: ClassVar[str] = "Lloyd 1982, Least squares quantization in PCM; Max 1960, Quantizing for minimum distortion"

    def __post_init__(self) -> None:
        if not 1 <= self.bits <= 8:
            raise CodecError(f"kmeans takes 1 to 8 bits, got {self.bits}")
        check_groups(self.name, self.per, self.bucket)

    @property
    def unbiased(self) -> bool:
        """Never."""
        return False

    def looks(self, layout: Layout) -> int | None:
        """Short runs, which tell where far values are, if a sample serves for all values."""
        length = group_length(layout, self.per, self.bucket)
        return lloyd_kernels.RUN if layout.count == length > sample_size(length, self.bits) else None

    def encode(self, plane: Plane, sink: Sink, context: Context) -> Plane:  # noqa: ARG002 - the interface's arguments
        """How many centroids each group has, less 1, all centroids as float32, and codes."""
        count, length = plane.layout.count, group_length(plane.layout, self.per, self.bucket)
        tables, counts = fit(plane, length, self.bits)
        sink.write("tables", (counts - 1).astype(np.uint8).tobytes() + tables.tobytes())
        data = packing.empty(count, self.bits)
        thresholds = thresholds_of(tables)
        grid = guide(thresholds) if counts.size == 1 and counts[0] > _FEW else None
        split = packing.split(data, count, self.bits)
        kernels.assign(plane.data, length, starts_of(counts), thresholds, grid, self.bits, *split)
        return Plane(Layout("ints", count, self.bits), data)

    def read(self, layout: Layout, source: Source) -> tuple[Layout, Undo]:
        """The centroids, which bound what is decoded."""
        count, length = layout.count, group_length(layout, self.per, self.bucket)
        counts = source.array(group_count(count, length)).astype(np.int64) + 1
        last = count - (counts.size - 1) * length
        if counts.max() > most_centroids(length, self.bits) or counts[-1] > most_centroids(last, self.bits):
            raise FrameError(
                "tables", f"{counts.max()} centroids are too many for {self.bits} bits or for so few values"
            )
        starts = starts_of(counts)
        tables = source.array(4 * int(starts[-1])).view(np.float32)
        if not np.isfinite(tables).all():
            raise FrameError("non-finite", "a centroid is not finite")
        rising = tables[1:] > tables[:-1]
        rising[starts[1:-1] - 1] = True
        if not rising.all():
            raise FrameError("tables", "centroids are not in order")

        def undo(plane: Plane, target: Target | None) -> Plane:
            values, weight = landing(count, target)
            split = packing.split(plane.data, count, self.bits)
            if not kernels.look_up(*split, self.bits, length, starts, tables, weight, values):
                raise FrameError("codes", "a code is beyond its table of centroids")
            return Plane.reals(values)

        return Layout("ints", count, self.bits), undo

    def tally(self, before: Tally) -> Tally:
        """`bits` a value, and the centroids as floats."""
        layout = Layout("reals", before.kept, 32, before.shape)
        length = group_length(layout, self.per, self.bucket)
        centroids = group_count(before.kept, length) * most_centroids(length, self.bits)
        return replace(before, bits=float(self.bits), side=before.side + 32.0 * centroids)
