"""Sparse ternary compression."""

import struct
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np

from tightwire.codecs import sparse
from tightwire.codecs.selection import select
from tightwire.codecs.sparse_kernels import mean_magnitude
from tightwire.codecs.stage import Context, Kind, Layout, Plane, Stage, Tally, Target, Undo
from tightwire.errors import FrameError
from tightwire.wire import indices
from tightwire.wire.packing import pack, unpack
from tightwire.wire.streams import Sink, Source

_MEAN = struct.Struct("<f")


@dataclass(frozen=True)
class SparseTernary(Stage):
    """Keeps the k = max(1, round(density * n)) largest magnitudes as their signs times their mean magnitude.

    With T the kept, mu = sum over T of |x| / k, over the kept values and not over all n, and x decodes to mu * sign(x)
    in T and to 0 elsewhere. The frame carries the positions, mu as float32, and a bit a kept value for its sign.
    Biased, so it wants error feedback. The squared error is ||x||**2 - k * mu**2, at most (1 - min(1/k, k/n)) of
    the squared norm: where one value is all there is its k-th part is left, and of n equal ones k/n.

    Raises:
        CodecError: When the density is not in (0, 1].
    """

    density: float
    """Kept fraction, in (0, 1]."""

    name: ClassVar[str] = "stc"
    example: ClassVar[str] = "stc(0.01)"
    takes: ClassVar[tuple[Kind, ...]] = ("reals",)
    gives: ClassVar[Kind | None] = "ints"
    family: ClassVar[str] = "sparsifier"
    passes: ClassVar[float] = 3.0
    source: ClassVar[str] = "Sattler et al. 2019, arXiv 1903.02891, algorithm 1"

    def __post_init__(self) -> None:
        sparse.check_density(self.name, self.density)

    @property
    def unbiased(self) -> bool:
        """Never: the kept values lose their differences."""
        return False

    def bound(self, layout: Layout) -> float:
        """Between one value that is all there is, and all equal."""
        kept = self.kept(layout.count)
        return 1 - min(1 / kept, kept / layout.count)

    @property
    def keeps(self) -> float:
        """The density."""
        return self.density

    def kept(self, n: int) -> int:
        """How many of `n` values, n > 0, are kept; halves round up."""
        return sparse.share(n, self.density)

    def encode(self, plane: Plane, sink: Sink, context: Context) -> Plane:  # noqa: ARG002 - the interface's arguments
        """Positions and the mean magnitude; a code is 1 for what is negative."""
        n = plane.layout.count
        chosen, values = select(plane.data, self.kept(n))
        indices.write(chosen, n, sink)
        sink.write("scales", _MEAN.pack(mean_magnitude(values)))
        return Plane(Layout("ints", chosen.size, 1), pack(values.view(np.uint32) >> np.uint32(31), 1))

    def read(self, layout: Layout, source: Source) -> tuple[Layout, Undo]:
        """Positions, whose number follows from the density, and the mean magnitude."""
        chosen = indices.read(self.kept(layout.count), layout.count, source)
        mean = np.frombuffer(source.take(_MEAN.size), "<f4").astype(np.float32)[0]
        if not np.isfinite(mean):
            raise FrameError("non-finite", f"the mean magnitude is {mean}")
        if mean < 0:
            raise FrameError("scales", f"the mean magnitude is {mean}, which is negative")

        def undo(plane: Plane, target: Target | None) -> Plane:
            codes = unpack(plane.data, chosen.size, 1)
            values = (mean.view(np.uint32) | codes << np.uint32(31)).view(np.float32)
            return Plane.reals(sparse.scattered(values, chosen, layout.count, target), layout.shape)

        return Layout("ints", chosen.size, 1), undo

    def tally(self, before: Tally) -> Tally:
        """A bit a kept value, ceil(log2 n) bits a position and a float."""
        kept = self.kept(before.kept)
        side = before.side + sparse.position_bits(kept, before.kept) + 32.0
        return replace(before, kept=kept, bits=1.0, side=side, shape=())
