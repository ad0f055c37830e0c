"""The sparsifier that keeps values at random positions, which only a seed says."""

import struct
from dataclasses import dataclass, replace
from typing import ClassVar, Literal

import numpy as np

from tightwire.arrays import Ints
from tightwire.codecs import sparse, sparse_kernels
from tightwire.codecs.stage import Context, Kind, Layout, Plane, Tally, Target, Undo
from tightwire.wire.indices import set_bits
from tightwire.wire.streams import Sink, Source

_SEED = struct.Struct("<I")


def positions(n: int, k: int, seed: int) -> Ints:
    """`k` of `n` positions, increasing, each set of k as likely as any other.

    Draw i is floor(n * h(i) / 2**64) with h the i-th number of SplitMix64 that the seed gives (Steele et al. 2014);
    what was drawn before is drawn again. Beyond one half, the positions that are left out are drawn instead. All of it
    is integers, so every machine draws the same. It ends for every seed, for h is a permutation of 64-bit numbers.

    Args:
        n: 1 to 2**32 - 1.
        k: 1 to n.
        seed: 32 bits.
    """
    marks = np.zeros((n + 7) // 8, np.uint8)
    few = k <= n // 2
    sparse_kernels.draw(n, k if few else n - k, seed, marks)
    return set_bits(marks if few else ~marks, k)


@dataclass(frozen=True)
class RandK(sparse.Sparsifier):
    """Keeps k = max(1, round(density * n)) of n values at random, without replacement; positions cost four bytes.

    The frame carries a seed of 32 bits, from which both ends draw the positions. With scale=unbiased kept values decode
    to n/k times themselves (cut to what float32 holds): unbiased, E of the squared error (n/k - 1) ||x||**2. With
    scale=none they decode as they are: a contraction, (1 - k/n) ||x||**2, for use with error feedback. A stage behind
    it takes the values unscaled.

    Raises:
        CodecError: When the density is not in (0, 1].
    """

    density: float
    """Kept fraction, in (0, 1]."""
    scale: Literal["unbiased", "none"] = "unbiased"

    name: ClassVar[str] = "randk"
    example: ClassVar[str] = "randk(0.1)"
    takes: ClassVar[tuple[Kind, ...]] = ("reals",)
    gives: ClassVar[Kind | None] = "reals"
    passes: ClassVar[float] = 1.0
    source: ClassVar[str] = "Stich et al. 2018, arXiv 1809.07599, definition 2.1; Konecny et al. 2016, arXiv 1610.05492"

    def __post_init__(self) -> None:
        sparse.check_density(self.name, self.density)

    @property
    def unbiased(self) -> bool:
        """When scaled, or where all are kept."""
        return self.scale == "unbiased" or self.density == 1

    def bound(self, layout: Layout) -> float:
        """Exactly what is expected."""
        kept = self.kept(layout.count)
        return layout.count / kept - 1 if self.scale == "unbiased" else 1 - kept / layout.count

    @property
    def keeps(self) -> float:
        """The density."""
        return self.density

    def kept(self, n: int) -> int:
        """How many of `n` values, n > 0, are kept; halves round up."""
        return sparse.share(n, self.density)

    def encode(self, plane: Plane, sink: Sink, context: Context) -> Plane:
        """The seed, and the values at its positions; no seed where all are kept."""
        n = plane.layout.count
        k = self.kept(n)
        if k == n:
            return Plane.reals(plane.data)
        seed = context.key & 0xFFFFFFFF
        sink.write("indices", _SEED.pack(seed))
        return Plane.reals(plane.data[positions(n, k, seed)])

    def read(self, layout: Layout, source: Source) -> tuple[Layout, Undo]:
        """The seed; any is right."""
        n = layout.count
        k = self.kept(n)
        if k == n:
            return sparse.left(layout, n), lambda plane, _: Plane(layout, plane.data)
        chosen = positions(n, k, *_SEED.unpack(source.take(_SEED.size)))
        factor = np.float32(n / k if self.scale == "unbiased" else 1)

        def undo(plane: Plane, target: Target | None) -> Plane:
            values = plane.data if factor == 1 else sparse_kernels.scaled(plane.data, factor)
            return Plane(layout, sparse.scattered(values, chosen, n, target))

        return sparse.left(layout, k), undo

    def tally(self, before: Tally) -> Tally:
        """32 bits for the seed."""
        kept = self.kept(before.kept)
        return replace(before, kept=kept, side=before.side + (32.0 if kept < before.kept else 0.0), shape=())
