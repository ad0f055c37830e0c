"""Even grids, and what stages that quantise to one have in common."""

from abc import abstractmethod
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from tightwire.arrays import Bytes8, Flat
from tightwire.codecs.affine_kernels import dequantise, grids, quantise_shifted, quantise_stochastic
from tightwire.codecs.groups import Per, group_count, group_length
from tightwire.codecs.stage import Context, Kind, Layout, Plane, Stage, Tally, Target, Undo
from tightwire.codecs.sums import Groups, PlaneGroups
from tightwire.errors import FrameError
from tightwire.wire import packing
from tightwire.wire.streams import Sink, Source

Reals = npt.NDArray[np.floating[Any]]
"""One number a group, shape (groups,): float32, or float64 where float32 would overflow or lose digits."""

LARGEST = float(np.finfo(np.float32).max)
_UNIT = 2.0**-24


def _grids(
    low: Flat, high: Flat, steps: int, middle: float = 0.0, stretch: float = 1.0
) -> tuple[Reals, Reals, Reals, Reals]:
    """Begin, inverse step, first value and step of each grid; see `tightwire.codecs.affine_kernels.grids`."""
    out = np.empty((4, low.size))
    plain = grids(low, high, steps, middle, stretch, out)
    start, inverse, base, step = out.astype(np.float32) if plain else out
    return start, inverse, base, step


@dataclass(frozen=True, slots=True)
class Affine:
    """A grid for each run of `length` values: codes 0 to `top`, each for a real.

    The code of x comes from rounding (x - low) * inverse and adding `zero`; the value of a code is base + code * step,
    or (code - zero) * unit * step where there is a unit, which gives the ends of a grid exactly. Both ends of the wire
    derive it from the same float32, so they agree on every bit.
    """

    length: int
    top: int
    low: Reals
    inverse: Reals
    base: Reals
    step: Reals
    unit: np.floating[Any] | None = None
    zero: int = 0

    @classmethod
    def spanning(cls, low: Flat, high: Flat, top: int, length: int) -> "Affine":
        """Codes 0 to `top` from `low` to `high`, both ends included; both finite, in order, shape (groups,)."""
        return cls(length, top, *_grids(low, high, top))

    @classmethod
    def cells(cls, low: Flat, high: Flat, count: int, length: int) -> "Affine":
        """As `spanning`, but in `count` cells of equal width, a code standing for the middle of its cell."""
        return cls(length, count - 1, *_grids(low, high, count, middle=0.5))

    @classmethod
    def centred(cls, scale: Flat, steps: int, length: int) -> "Affine":
        """2 * steps + 1 codes from -scale to scale, the one in the middle for 0; scale is finite, shape (groups,)."""
        zeros = np.zeros_like(scale)
        start, inverse, _, step = _grids(zeros, scale, steps, stretch=1 + 2.0**-23)  # so that the ends stay the ends
        return cls(
            length, 2 * steps, start, inverse, start, scale.astype(step.dtype), step.dtype.type(1 / steps), steps
        )

    def restored_by(self, other: "Affine") -> "Affine":
        """The codes of these grids, with the values that they have on the grids of `other`."""
        return replace(self, base=other.base, step=other.step, unit=other.unit)

    @property
    def bits(self) -> int:
        """Of a code."""
        return self.top.bit_length()

    def nearest_zero(self) -> int | None:
        """The code for 0 or what is nearest to it; None where groups differ."""
        if self.unit is not None:
            return self.zero
        if self.low.size > 1:
            return None
        start, step = float(self.base[0]), float(self.step[0])
        return round(min(max(-start / step, 0.0), float(self.top))) if step else 0

    def layout(self, count: int) -> Layout:
        """Of `count` codes."""
        return Layout("ints", count, self.bits, zero=self.nearest_zero())


def quantise(values: Flat, affine: Affine, *, key: int | None = None, shift: float = 0.5) -> Bytes8:
    """Packed codes of `values`, those outside of their grid cut to its ends.

    Args:
        values: Shape (n,), contiguous, finite.
        affine: Their grids.
        key: Of stochastic rounding, 64 bits; None for rounding by `shift`.
        shift: Added before rounding down: 1/2 gives the nearest, halves up.
    """
    bits, real = affine.bits, affine.low.dtype.type
    data = packing.empty(values.size, bits)
    least, most, zero = real(-affine.zero), real(affine.top - affine.zero), np.int32(affine.zero)
    grid = (values, affine.length, affine.low, affine.inverse, least, most)
    packed = (bits, *packing.split(data, values.size, bits))
    if key is None:
        quantise_shifted(*grid, real(shift), zero, *packed)
    else:
        quantise_stochastic(*grid, real(_UNIT), zero, np.uint32(key & 0xFFFFFFFF), np.uint32(key >> 32), *packed)
    return data


def restore(data: Bytes8, affine: Affine, out: Flat, weight: np.float32 | None = None) -> None:
    """Decode packed codes to `out`, shape (n,); with a weight, add them times it, product and sum in float32.

    Raises:
        FrameError: ``codes`` when one is beyond the top; what is in `out` is then undefined.
    """
    bits = affine.bits
    words, tail = packing.split(data, out.size, bits)
    largest = dequantise(
        words, tail, bits, affine.length, affine.base, affine.step, affine.unit, np.int32(affine.zero), weight, out
    )
    check_largest(largest, affine)


def check_largest(code: int, affine: Affine) -> None:
    """Refuse codes, the largest of which is `code`, that are not on the grid.

    Raises:
        FrameError: ``codes`` when it is beyond the top.
    """
    if code > affine.top:
        raise FrameError("codes", f"a code is {code}, where {affine.top} is the largest")


class AffineStage(Stage):
    """A quantiser to even grids, one for each group of values, with its scales as float32 in section ``scales``.

    A final stage is a dataclass whose last fields are `per` and `bucket`.
    """

    per: Per
    bucket: int

    takes: ClassVar[tuple[Kind, ...]] = ("reals",)
    gives: ClassVar[Kind | None] = "ints"
    family: ClassVar[str] = "quantiser"
    numbers: ClassVar[int] = 1
    """Scales of one group."""

    @property
    @abstractmethod
    def width(self) -> int:
        """Bits of a code."""

    @abstractmethod
    def scales(self, groups: Groups, context: Context) -> Flat:
        """What grids are made from and, unless it is `fitted`, goes on the wire; shape (groups, numbers)."""

    @abstractmethod
    def affine(self, scales: Flat, length: int) -> Affine:
        """The grids that finite `scales` from the wire stand for.

        Raises:
            FrameError: ``scales`` when they stand for none.
        """

    def codes(self, values: Flat, affine: Affine, context: Context) -> Bytes8:
        """Packed codes; rounded stochastically unless a stage does it otherwise."""
        return quantise(values, affine, key=context.key)

    def fitted(self, scales: Flat, affine: Affine, groups: Groups) -> Flat:  # noqa: ARG002 - for those who fit
        """What goes on the wire instead of `scales`, once the values' codes on `affine` are known; mostly `scales`."""
        return scales

    def send(self, groups: Groups, sink: Sink, context: Context) -> Affine:
        """Write the scales of all groups; the grids that codes come from, and that scales on the wire stand for."""
        scales = self.scales(groups, context)
        affine = self.affine(scales, groups.length)
        sent = self.fitted(scales, affine, groups)
        sink.write("scales", sent.astype("<f4", copy=False).tobytes())
        return affine if sent is scales else affine.restored_by(self.affine(sent, groups.length))

    def receive(self, layout: Layout, source: Source) -> Affine:
        """The inverse of `send`, for values of that layout.

        Raises:
            FrameError: ``non-finite`` or ``scales`` when the scales are none.
        """
        length = group_length(layout, self.per, self.bucket)
        groups = group_count(layout.count, length)
        scales = np.frombuffer(source.take(4 * groups * self.numbers), "<f4").astype(np.float32)
        if not np.isfinite(scales).all():
            raise FrameError("non-finite", f"a scale of '{self.name}' is {scales[~np.isfinite(scales)][0]}")
        return self.affine(scales.reshape(groups, self.numbers), length)

    def looks(self, layout: Layout) -> int | None:
        """A quantiser's groups; one whose scales come from sums says otherwise."""
        return group_length(layout, self.per, self.bucket)

    def encode(self, plane: Plane, sink: Sink, context: Context) -> Plane:
        """The scales of all groups, and packed codes."""
        count, length = plane.layout.count, group_length(plane.layout, self.per, self.bucket)
        affine = self.send(PlaneGroups(count, length, plane), sink, context)
        return Plane(affine.layout(count), self.codes(plane.data, affine, context))

    def read(self, layout: Layout, source: Source) -> tuple[Layout, Undo]:
        """The scales, which bound every value decoded."""
        affine = self.receive(layout, source)

        def undo(plane: Plane, target: Target | None) -> Plane:
            values = np.empty(layout.count, np.float32) if target is None else target.memory
            restore(plane.data, affine, values, None if target is None else target.weight)
            return Plane.reals(values)

        return affine.layout(layout.count), undo

    def tally(self, before: Tally) -> Tally:
        """The width a value, and the scales."""
        length = group_length(Layout("reals", before.kept, 32, before.shape), self.per, self.bucket)
        side = 32.0 * self.numbers * group_count(before.kept, length)
        return replace(before, bits=float(self.width), side=before.side + side)


def in_order(scales: Flat) -> tuple[Flat, Flat]:
    """The low and the high ends in `scales`, shape (groups, 2).

    Raises:
        FrameError: ``scales`` when a group's are not in order.
    """
    low, high = np.ascontiguousarray(scales[:, 0]), np.ascontiguousarray(scales[:, 1])
    if (low > high).any():
        wrong = int(np.argmax(low > high))
        raise FrameError("scales", f"a quantiser's range is empty, from {low[wrong]} to {high[wrong]}")
    return low, high


def not_negative(scales: Flat) -> Flat:
    """The scales, shape (groups,), that `scales`, shape (groups, 1), holds.

    Raises:
        FrameError: ``scales`` when one is below 0.
    """
    if (scales < 0).any():
        raise FrameError("scales", f"a quantiser's scale is {scales.min()}, below 0")
    return scales.ravel()
