"""The quantiser for what a random rotation has made normal."""

import math
import struct
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import ClassVar, Literal

import numpy as np

from tightwire.arrays import Bytes8
from tightwire.codecs import eden_kernels as kernels
from tightwire.codecs import hadamard
from tightwire.codecs.floats import landing
from tightwire.codecs.groups import Per, check_groups, group_length
from tightwire.codecs.hadamard import Edges
from tightwire.codecs.lloyd_max import DISTORTIONS
from tightwire.codecs.stage import Context, Kind, Layout, Plane, Stage, Tally, Target, Undo
from tightwire.errors import CodecError, FrameError
from tightwire.wire import packing
from tightwire.wire.streams import Sink, Source

_SEED = struct.Struct("<I")
_COARSE = 4
_GRID = 1.06
"""What `Eden.bound` allows for beyond so many bits."""


@lru_cache(maxsize=16)
def _blocks(count: int, length: int, bits: float) -> tuple[Edges, Edges]:
    """As `Eden._blocks`, for `count` values in groups of `length`; nobody writes to what it gives."""
    edges, base = hadamard.grouped(count, length), math.floor(bits)
    fine = np.floor((bits - base) * np.diff(edges) + 0.5).astype(np.int64)
    return edges, fine if base else np.maximum(fine, 1)


@dataclass(frozen=True)
class Eden(Stage):
    """EDEN: rotate at random, then quantise to the levels that are best for normal values; at 1 bit this is DRIVE.

    A block of d values x is rotated to r = R x, whose coordinates are about normal with variance ||x||**2 / d. Each of
    z = r sqrt(d) / ||x|| goes to the nearest of the 2**bits Lloyd-Max levels of the standard normal distribution, c(z),
    and x decodes to s R^-1 c. The frame carries one float32 scale s a block and a seed of four bytes.

    scale=unbiased sends s = ||x||**2 / <c, r>. The expectation over uniform rotations is then x exactly, with error
    1 / (1 - D) - 1 of ||x||**2, where D is the levels' mean squared error: 0.571, 0.133, 0.0358 and 0.00959 for 1 to 4
    bits. scale=biased sends s = <c, r> / ||c||**2, which has the least error, D, and wants error feedback. R is made of
    two to four rounds of random signs and a Hadamard matrix (`tightwire.codecs.hadamard`), as one round, which the
    paper's own code takes, has a third of the norm as bias for vectors with two values that are not zero; with these,
    no bias is seen over 10**4 keys at any length and sparsity. Nothing is padded.

    Bits need not be whole. For b + f bits the first f d coordinates of each rotated block have b + 1 bits and the rest
    b: after a random rotation they are as good as the random subset that the paper draws. Below one bit, k = bits * d
    coordinates from a random one on have one bit and the rest are not sent; s = d / k ||kept||**2 / <c, kept> then.

    Blocks are of up to 2**12 values, each with its scale, so that layers of different magnitude behind `flatten` do not
    disturb each other: 0.008 bits a value. With per=channel or bucket=k, rows or runs of k values are blocks of their
    own. A scale that float32 cannot hold, as of values beyond 2e38, is the largest that it can.

    Raises:
        CodecError: When the bits are out of range, or the granularity makes no sense.
    """

    bits: float
    """Above 0, up to 8."""
    scale: Literal["unbiased", "biased"] = "unbiased"
    per: Per = "tensor"
    bucket: int = 0

    name: ClassVar[str] = "eden"
    example: ClassVar[str] = "eden(2)"
    takes: ClassVar[tuple[Kind, ...]] = ("reals",)
    gives: ClassVar[Kind | None] = "ints"
    family: ClassVar[str] = "quantiser"
    passes: ClassVar[float] = 8.0
    refuses_non_finite: ClassVar[bool] = True
    source: ClassVar[str] = (
        "Vargaftik et al. 2022, arXiv 2108.08842, algorithm 1; Vargaftik et al. 2021, arXiv 2105.08339 (1 bit)"
    )

    def __post_init__(self) -> None:
        if not 0 < self.bits <= 8:
            raise CodecError(f"eden takes more than 0 and up to 8 bits, got {self.bits}")
        check_groups(self.name, self.per, self.bucket)
        if self.bits == self._base:
            object.__setattr__(self, "bits", self._base)  # so that it prints as eden(2), not eden(2.0)

    @property
    def _base(self) -> int:
        """Bits that every value has; 0 where some are not sent."""
        return math.floor(self.bits)

    @property
    def _width(self) -> int:
        """Bits of a code in the plane."""
        return max(self._base, 1)

    @property
    def unbiased(self) -> bool:
        """With the scale of that name."""
        return self.scale == "unbiased"

    @property
    def keeps(self) -> float:
        """The bits, below one."""
        return min(float(self.bits), 1.0)

    def bound(self, layout: Layout) -> float:
        """That of normal coordinates, which no block of whatever values and length was seen to exceed up to 4 bits.

        Beyond, 6 % more: the coordinates of a block of a few equal values are on a grid, which was seen to take 5 %.
        With D the mean of the levels' mean squared error over the coordinates that are sent, p of all, it is
        1 / (p (1 - D)) - 1 unbiased, and 1 - p (1 - D) biased.
        """
        edges, fine = self._blocks(layout)
        share = fine / np.diff(edges)
        coarse = 1 - DISTORTIONS[self._base - 1] if self._base else 0.0
        finer = 1 - DISTORTIONS[self._base] if self.bits > self._base else coarse
        least = float((coarse + share * (finer - coarse)).min())
        excess = _GRID if self.bits > _COARSE else 1.0
        return excess * (1 / least - 1 if self.unbiased else 1 - least)

    def _blocks(self, layout: Layout) -> tuple[Edges, Edges]:
        """Edges of the blocks, and how many values of each come first with a bit more."""
        return _blocks(layout.count, group_length(layout, self.per, self.bucket), self.bits)

    def _sizes(self, layout: Layout, fine: Edges) -> tuple[int, int]:
        """Numbers of codes, and of extra bits."""
        total = int(fine.sum())
        return (layout.count, total) if self._base else (total, 0)

    def encode(self, plane: Plane, sink: Sink, context: Context) -> Plane:
        """A seed, the scales, the extra bits where bits are not whole, and packed codes."""
        seed = context.key & 0xFFFFFFFF
        edges, fine = self._blocks(plane.layout)
        count, more = self._sizes(plane.layout, fine)
        data, extras = packing.empty(count, self._width), np.empty(more, np.uint8)
        scales = np.empty(fine.size, np.float32)
        halves = packing.split(data, count, self._width)
        how = (edges, fine, self._base, self.unbiased, *hadamard.keys(seed))
        if not kernels.encode(plane.data, *how, *halves, extras, scales):
            context.refuse_non_finite()
        sink.write("scales", _SEED.pack(seed))
        sink.write("scales", scales.astype("<f4").view(np.uint8))
        if more:
            sink.write("codes", _packed(extras))
        return Plane(Layout("ints", count, self._width), data)

    def read(self, layout: Layout, source: Source) -> tuple[Layout, Undo]:
        """The scales, which are finite and not negative, and the extra bits."""
        edges, fine = self._blocks(layout)
        count, more = self._sizes(layout, fine)
        (seed,) = _SEED.unpack(source.take(_SEED.size))
        scales = source.array(4 * fine.size).view("<f4").astype(np.float32)
        if not np.isfinite(scales).all():
            raise FrameError("non-finite", f"a scale of {self} is not finite")
        if np.signbit(scales).any():
            raise FrameError("scales", f"a scale of {self} is negative, {scales.min()}")
        extras = np.empty(more, np.uint8)
        kernels.unpack(*packing.split(source.array(packing.packed_length(more, 1)), more, 1), 1, extras)

        def undo(plane: Plane, target: Target | None) -> Plane:
            values, weight = landing(layout.count, target)
            halves = packing.split(plane.data, count, self._width)
            terms = (extras, edges, fine, self._base, *hadamard.keys(seed), scales)
            kernels.decode(*halves, *terms, values, *hadamard.added(weight))
            return Plane.reals(values)

        return Layout("ints", count, self._width), undo

    def tally(self, before: Tally) -> Tally:
        """`bits` a value, a seed, and a float a block."""
        layout = Layout("reals", before.kept, 32, before.shape)
        fine = self._blocks(layout)[1]
        count, more = self._sizes(layout, fine)
        side = before.side + 32.0 + 32.0 * fine.size
        return replace(before, kept=count, bits=self._width + more / count, side=side, shape=())


def _packed(bits: Bytes8) -> Bytes8:
    """Bits of a byte each, packed."""
    data = packing.empty(bits.size, 1)
    kernels.pack(bits, 1, *packing.split(data, bits.size, 1))
    return data
