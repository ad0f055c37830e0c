"""What the sparsifiers have in common: which values they take, and how those are sent and put back."""

import math
from abc import abstractmethod
from dataclasses import replace
from typing import ClassVar

import numpy as np

from tightwire.arrays import Flat, Ints
from tightwire.codecs import sparse_kernels
from tightwire.codecs.kernels import Bits
from tightwire.codecs.stage import Axes, Kind, Layout, Plane, Stage, Tally, Target, Undo
from tightwire.errors import CodecError, FrameError
from tightwire.wire import indices
from tightwire.wire.packing import pack, unpack
from tightwire.wire.streams import Sink, Source, varint


def check_density(name: str, density: float) -> None:
    """Refuse a density that is none.

    Raises:
        CodecError: When it is not in (0, 1].
    """
    if not 0 < density <= 1:
        raise CodecError(f"{name} takes a density in (0, 1], got {density}")


def share(n: int, density: float) -> int:
    """How many of `n`, n > 0, are kept: density * n, halves rounded up, and one at least."""
    return min(n, max(1, math.floor(density * n + 0.5)))


def position_bits(kept: int, n: int) -> int:
    """What naive indices of `kept` of `n` values would take."""
    return kept * (n - 1).bit_length() if kept < n else 0


def magnitudes(plane: Plane) -> Bits:
    """Of each value an integer whose order, but for the sign bit, is that of magnitudes.

    Of reals their bits, of codes how far they are from the code for zero, the sign bit set for those below it.

    Raises:
        CodecError: For codes of more than 31 bits.
    """
    layout = plane.layout
    if layout.kind == "reals":
        return plane.data.view(np.int32)
    if layout.bits > 31:
        raise CodecError(f"sparsifiers take codes of 31 bits or fewer, got {layout.bits}")
    return sparse_kernels.distances(unpack(plane.data, layout.count, layout.bits), _zero(layout))


def _zero(layout: Layout) -> int:
    assert layout.zero is not None, "the chain lets no codes without a zero come here"  # noqa: S101
    return layout.zero


def left(layout: Layout, kept: int) -> Layout:
    """The layout of `kept` values of a plane."""
    return replace(layout, count=kept, shape=(), parts=())


def taken(layout: Layout, raw: Bits) -> Plane:
    """The plane of kept values, of a plane of that layout, that have these `magnitudes`."""
    kept = left(layout, raw.size)
    if layout.kind == "reals":
        return Plane(kept, raw.view(np.float32))
    return Plane(kept, pack(sparse_kernels.at_distances(raw, _zero(layout)), layout.bits))


def put_back(layout: Layout, chosen: Ints) -> Undo:
    """What puts kept values back to the indices `chosen`, shape (k,), increasing, of a plane of that layout."""

    def undo(plane: Plane, target: Target | None) -> Plane:
        if layout.kind == "reals":
            return Plane(layout, scattered(plane.data, chosen, layout.count, target))
        codes = unpack(plane.data, chosen.size, layout.bits)
        codes = sparse_kernels.place_codes(chosen, codes, _zero(layout), layout.count)
        return Plane(layout, pack(codes, layout.bits))

    return undo


def scattered(values: Flat, chosen: Ints, n: int, target: Target | None) -> Flat:
    """`n` reals, delivered to a target if there is one: `values` at the indices `chosen`, increasing, else zeros."""
    if target is not None and target.weight is not None:
        sparse_kernels.add(chosen, values, target.weight, target.memory)
        return target.memory
    out = np.empty(n, np.float32) if target is None else target.memory
    sparse_kernels.place(chosen, values, out)
    return out


def write_counted(chosen: Ints, n: int, sink: Sink) -> None:
    """Write how many of `n` values are kept, and the indices `chosen`, shape (k,), k > 0, increasing."""
    sink.write("indices", varint(chosen.size))
    indices.write(chosen, n, sink)


def read_counted(n: int, source: Source) -> Ints:
    """The inverse of `write_counted`.

    Raises:
        FrameError: When there are not 1 to n indices in order.
    """
    count = source.varint()
    if not 1 <= count <= n:
        raise FrameError("indices", f"{count} of {n} values are kept; 1 to {n} can be")
    return indices.read(count, n, source)


class Sparsifier(Stage):
    """A stage that keeps some of the values as they are; the others decode as zero, codes as the code for zero."""

    takes: ClassVar[tuple[Kind, ...]] = ("reals", "ints")
    gives: ClassVar[Kind | None] = None
    family: ClassVar[str] = "sparsifier"

    @property
    def axes(self) -> Axes:
        """What is kept is a row."""
        return "lost"

    @abstractmethod
    def kept(self, n: int) -> int:
        """How many of `n` values, n > 0, are kept; the most there can be where that depends on the values."""

    def tally(self, before: Tally) -> Tally:
        """ceil(log2 n) bits a position, as the naive index would take."""
        kept = self.kept(before.kept)
        side = before.side + position_bits(kept, before.kept)
        return replace(before, kept=kept, side=side, shape=())
