"""The sparsifier that keeps the largest magnitudes."""

import math
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np

from tightwire.arrays import Flat, Ints
from tightwire.codecs import kernels
from tightwire.codecs.stage import Context, Kind, Layout, Plane, Stage, Tally, Target, Undo
from tightwire.errors import CodecError
from tightwire.wire import indices
from tightwire.wire.streams import Sink, Source

_SAMPLE = 2**15
"""Values below which every value is a candidate, and the size of the sample above."""


def select(values: Flat, k: int) -> tuple[Ints, Flat]:
    """Indices, increasing, and values of the k largest magnitudes; of equal ones the first are taken.

    A sample gives a threshold that a few more than k values should reach; one pass gathers those, and among them the
    k-th largest is found exactly. Where fewer than k reach it, all values are candidates.

    Args:
        values: Shape (n,), contiguous. Infinities are larger than what is finite, and NaNs larger still.
        k: 1 to n.
    """
    n = values.size
    if k == n:
        return np.arange(n), values
    raw = values.view(np.int32)
    threshold, room = 0, n
    if n > _SAMPLE:
        sample = raw[:: n // _SAMPLE] & kernels.FOLD
        expected = k / n * sample.size
        rank = min(sample.size, math.ceil(expected + 4 * math.sqrt(expected) + 8))
        threshold = int(np.partition(sample, sample.size - rank)[sample.size - rank])
        room = min(n, 2 * rank * n // sample.size)
    candidates, bits = kernels.reaching(raw, np.int32(threshold), room)
    if candidates.size < k:
        candidates, bits = np.arange(n), raw
    kept, bits = kernels.largest(candidates, bits, k)
    return kept, bits.view(np.float32)


@dataclass(frozen=True)
class TopK(Stage):
    """Keeps the k = max(1, round(density * n)) largest magnitudes of a tensor's n values, exactly.

    Of equal magnitudes those of lower index are kept. Biased; a contraction: squared error at most (1 - k/n) of the
    squared norm, so it wants error feedback.

    Raises:
        CodecError: When the density is not in (0, 1].
    """

    density: float
    """Kept fraction, in (0, 1]."""

    name: ClassVar[str] = "topk"
    example: ClassVar[str] = "topk(0.1)"
    takes: ClassVar[tuple[Kind, ...]] = ("reals",)
    gives: ClassVar[Kind | None] = "reals"
    family: ClassVar[str] = "sparsifier"
    passes: ClassVar[float] = 3.0
    hands_on_non_finite: ClassVar[bool] = True
    source: ClassVar[str] = "Stich et al. 2018, arXiv 1809.07599, definition 2.1"

    def __post_init__(self) -> None:
        if not 0 < self.density <= 1:
            raise CodecError(f"topk takes a density in (0, 1], got {self.density}")

    @property
    def unbiased(self) -> bool:
        """Never, but where all are kept."""
        return self.density == 1

    def bound(self, layout: Layout) -> float:
        """The kept hold at least their share of the squared norm."""
        return 1 - self.kept(layout.count) / layout.count

    @property
    def keeps(self) -> float:
        """The density."""
        return self.density

    def kept(self, n: int) -> int:
        """How many of `n` values, n > 0, are kept; halves round up."""
        return min(n, max(1, math.floor(self.density * n + 0.5)))

    def encode(self, plane: Plane, sink: Sink, context: Context) -> Plane:  # noqa: ARG002 - the interface's arguments
        """Indices to the frame, kept values to the next stage."""
        n = plane.layout.count
        chosen, values = select(plane.data, self.kept(n))
        indices.write(chosen, n, sink)
        return Plane.reals(values)

    def read(self, layout: Layout, source: Source) -> tuple[Layout, Undo]:
        """The indices; their number follows from the density."""
        n = layout.count
        chosen = indices.read(self.kept(n), n, source)

        def undo(plane: Plane, target: Target | None) -> Plane:
            if target is not None and target.weight is not None:
                target.memory[chosen] += plane.data * target.weight
                return Plane.reals(target.memory)
            values = np.empty(n, np.float32) if target is None else target.memory
            values[:] = 0
            values[chosen] = plane.data
            return Plane.reals(values)

        return Layout("reals", chosen.size, 32), undo

    def tally(self, before: Tally) -> Tally:
        """ceil(log2 n) bits a position, as the naive index would take."""
        k = self.kept(before.kept)
        positions = k * (before.kept - 1).bit_length() if k < before.kept else 0
        return replace(before, kept=k, side=before.side + positions, shape=())
