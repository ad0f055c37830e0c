"""The sparsifier that keeps whole groups of values."""

import math
from dataclasses import dataclass, replace
from typing import ClassVar, Literal

import numpy as np

from tightwire.arrays import Flat, Floats, Ints
from tightwire.codecs import sparse, sparse_kernels
from tightwire.codecs.stage import Axes, Context, Kind, Layout, Plane, Tally, Target, Undo
from tightwire.errors import CodecError
from tightwire.wire import indices
from tightwire.wire.streams import Sink, Source


@dataclass(frozen=True)
class Structured(sparse.Sparsifier):
    """Keeps the g = max(1, round(density * G)) of a tensor's G groups with the largest l2 norms; of equals the first.

    Groups are, by `unit`:

    * ``rows``: the slices along axis 0 of a tensor with two axes or more, so output units, or whole filter banks;
    * ``filters``: the slices along axes 0 and 1 of a tensor with three or more, so the kernels of a convolution;
    * ``blocks``: runs of `block` values, the last of which may be shorter.

    A tensor that has no such axes, such as a bias, is sent whole. Only the groups' positions are sent, one for many
    values. The kept rows and filters go on as a tensor, so that a quantiser behind may take a scale for each. Biased;
    a contraction, squared error at most (1 - g/G) of the squared norm, and wants error feedback. Norms are summed in
    float64, in a fixed order.

    Raises:
        CodecError: When the density is not in (0, 1], or a block has no values.
    """

    unit: Literal["rows", "filters", "blocks"]
    density: float
    """Kept fraction of the groups, in (0, 1]."""
    block: int = 64
    """Values of a block; no other unit uses it."""

    name: ClassVar[str] = "structured"
    example: ClassVar[str] = "structured(blocks, 0.1)"
    takes: ClassVar[tuple[Kind, ...]] = ("reals",)
    gives: ClassVar[Kind | None] = "reals"
    passes: ClassVar[float] = 2.0
    source: ClassVar[str] = "Wen et al. 2016, arXiv 1608.03665, section 3 (groups); Stich et al. 2018 (contraction)"

    def __post_init__(self) -> None:
        sparse.check_density(self.name, self.density)
        if self.block < 1:
            raise CodecError(f"structured takes blocks of 1 value or more, got {self.block}")

    @property
    def unbiased(self) -> bool:
        """Never, but where all are kept."""
        return self.density == 1

    @property
    def axes(self) -> Axes:
        """Rows and filters keep theirs."""
        return "kept" if self.wants_axes else "lost"

    @property
    def wants_axes(self) -> bool:
        """For rows and filters."""
        return self.unit != "blocks"

    def bound(self, layout: Layout) -> float:
        """The kept groups hold at least their share of the squared norm."""
        groups = self._groups(layout.shape, layout.count)
        return 1 - sparse.share(groups, self.density) / groups

    @property
    def keeps(self) -> float:
        """The density."""
        return self.density

    def kept(self, n: int) -> int:
        """About how many of `n` values are kept."""
        return sparse.share(n, self.density)

    def _groups(self, shape: tuple[int, ...], n: int) -> int:
        """How many there are; where the unit does not fit the shape each value counts as kept, and there is 1."""
        if self.unit == "blocks":
            return -(-n // self.block)
        axes = 1 if self.unit == "rows" else 2
        return math.prod(shape[:axes]) if len(shape) > axes else 1

    def _length(self, layout: Layout) -> int:
        groups = self._groups(layout.shape, layout.count)
        return self.block if self.unit == "blocks" else layout.count // groups

    def _left(self, layout: Layout, groups: int, kept: int) -> Layout:
        """Of `kept` values that are so many whole groups."""
        if groups == self._groups(layout.shape, layout.count):
            return layout
        inner = layout.shape[1 if self.unit == "rows" else 2 :]
        return replace(layout, count=kept, shape=() if self.unit == "blocks" else (groups, *inner))

    def encode(self, plane: Plane, sink: Sink, context: Context) -> Plane:  # noqa: ARG002 - the interface's arguments
        """The groups' indices, and their values to the next stage."""
        layout = plane.layout
        groups = self._groups(layout.shape, layout.count)
        kept = sparse.share(groups, self.density)
        if kept == groups:
            return plane
        length = self._length(layout)
        chosen = _largest(sparse_kernels.energies(plane.data, length), kept)
        indices.write(chosen, groups, sink)
        values = np.empty(_size(chosen, length, layout.count), np.float32)
        sparse_kernels.take_groups(chosen, length, plane.data, values)
        return Plane(self._left(layout, kept, values.size), values)

    def read(self, layout: Layout, source: Source) -> tuple[Layout, Undo]:
        """The groups' indices; their number follows from the density and the shape."""
        groups = self._groups(layout.shape, layout.count)
        kept = sparse.share(groups, self.density)
        if kept == groups:
            return layout, lambda plane, _: plane
        length = self._length(layout)
        chosen = indices.read(kept, groups, source)
        size = _size(chosen, length, layout.count)

        def undo(plane: Plane, target: Target | None) -> Plane:
            if target is not None and target.weight is not None:
                sparse_kernels.add_groups(chosen, length, plane.data, target.weight, target.memory)
                return Plane(layout, target.memory)
            out: Flat = np.empty(layout.count, np.float32) if target is None else target.memory
            sparse_kernels.place_groups(chosen, length, plane.data, out)
            return Plane(layout, out)

        return self._left(layout, kept, size), undo

    def tally(self, before: Tally) -> Tally:
        """ceil(log2 G) bits a group."""
        groups = self._groups(before.shape, before.kept)
        kept = sparse.share(groups, self.density)
        if kept == groups:
            return before
        values = before.kept * kept // groups
        return replace(before, kept=values, side=before.side + sparse.position_bits(kept, groups), shape=())


def _largest(energies: Floats, kept: int) -> Ints:
    """Indices, increasing, of so many of the largest; of equals the first."""
    least = np.partition(energies, energies.size - kept)[energies.size - kept]
    chosen = energies > least
    ties = np.flatnonzero(energies == least)[: kept - np.count_nonzero(chosen)]
    chosen[ties] = True
    return np.flatnonzero(chosen)


def _size(chosen: Ints, length: int, n: int) -> int:
    """Values of the chosen groups; the last of all may be shorter than the others."""
    return chosen.size * length - max(0, (int(chosen[-1]) + 1) * length - n)
