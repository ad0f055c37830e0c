"""The transform that spreads what is large over many values."""

import math
import struct
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np

from tightwire.codecs import hadamard
from tightwire.codecs.floats import landing
from tightwire.codecs.stage import Axes, Context, Kind, Layout, Plane, Stage, Tally, Target, Undo
from tightwire.errors import FrameError
from tightwire.wire.streams import Sink, Source

_HEAD = struct.Struct("<Ib")
_PLAIN = 60
"""Values whose largest is below 2 to this power, and not below its inverse, are rotated as they are."""
_LEAST, _MOST = -126, 127


def _exponent(plane: Plane) -> int:
    """The power of two that a plane is divided by, so that no sum overflows or loses bits."""
    low, high = plane.extremes
    exponent = math.frexp(max(abs(float(low)), abs(float(high))))[1]
    return 0 if -_PLAIN < exponent <= _PLAIN else min(max(exponent, _LEAST), _MOST)


@dataclass(frozen=True)
class Rotate(Stage):
    """A random rotation, H D x / sqrt(d): what comes out is about normal, whatever went in.

    D are random signs and H is a Hadamard matrix, in blocks of d = 2**12 values and, where n is not their multiple, in
    shorter blocks at the end that are orthogonal without padding (`tightwire.codecs.hadamard`): n values stay n. After
    it, the range that a quantiser must cover is about sqrt(2 ln n) standard deviations instead of what one outlier
    dictates. Orthogonal, so it adds no error of its own but float32's rounding, about 1e-7 of the norm. The seed of the
    signs takes four bytes, and the power of two by which very large or small values are scaled takes one.
    """

    name: ClassVar[str] = "rotate"
    example: ClassVar[str] = "rotate"
    takes: ClassVar[tuple[Kind, ...]] = ("reals",)
    gives: ClassVar[Kind | None] = "reals"
    family: ClassVar[str] = "transform"
    passes: ClassVar[float] = 3.0
    source: ClassVar[str] = "Suresh et al. 2017, arXiv 1611.00429, section 3; Konecny et al. 2016, arXiv 1610.05492"

    @property
    def unbiased(self) -> bool:
        """Always: it is inverted exactly, up to rounding."""
        return True

    @property
    def axes(self) -> Axes:
        """What comes out is a row."""
        return "lost"

    def bound(self, layout: Layout) -> float:  # noqa: ARG002 - the same for all
        """No error, up to rounding."""
        return 0.0

    def encode(self, plane: Plane, sink: Sink, context: Context) -> Plane:
        """Five bytes, and as many values as came."""
        seed, exponent = context.key & 0xFFFFFFFF, _exponent(plane)
        sink.write("scales", _HEAD.pack(seed, exponent))
        n = plane.layout.count
        values = np.empty(n, np.float32)
        scale = np.float32(math.ldexp(1.0, -exponent))
        hadamard.rotate_blocks(plane.data, hadamard.edges(n), scale, *hadamard.keys(seed), values)
        return Plane.reals(values)

    def read(self, layout: Layout, source: Source) -> tuple[Layout, Undo]:
        """Any seed will do."""
        seed, exponent = _HEAD.unpack(source.take(_HEAD.size))
        if not _LEAST <= exponent <= _MOST:
            raise FrameError("scales", f"a rotation's values are times 2**{exponent}; {_LEAST} to {_MOST} are right")
        n = layout.count

        def undo(plane: Plane, target: Target | None) -> Plane:
            values, weight = landing(n, target)
            scale, pair = np.float32(math.ldexp(1.0, exponent)), hadamard.keys(seed)
            hadamard.unrotate_blocks(plane.data, hadamard.edges(n), scale, *pair, values, *hadamard.added(weight))
            return Plane.reals(values)

        return Layout("reals", n, 32), undo

    def tally(self, before: Tally) -> Tally:
        """A seed of 32 bits."""
        return replace(before, side=before.side + 32.0, shape=())
