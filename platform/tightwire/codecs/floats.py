"""Stages that send every real as a float of its own."""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal

import numpy as np

from tightwire.arrays import AnyArray, Flat
from tightwire.codecs import float_kernels
from tightwire.codecs.stage import Context, Kind, Layout, Plane, Stage, Tally, Target, Undo
from tightwire.errors import FrameError
from tightwire.wire.streams import Sink, Source

Rounding = Literal["nearest", "stochastic"]

_INFINITE = 0x7F800000
_INFINITE_HALF = 0x7C00
_INFINITE_BRAIN = 0x7F80


def keys_of(context: Context) -> tuple[np.uint32, np.uint32]:
    """The key of `tightwire.codecs.kernels.noise`, as its two words."""
    return np.uint32(context.key & 0xFFFFFFFF), np.uint32(context.key >> 32)


def landing(count: int, target: Target | None) -> tuple[Flat, np.float32 | None]:
    """Where a kernel writes `count` values, and the weight with which it adds them, or None where it replaces."""
    return (np.empty(count, np.float32), None) if target is None else (target.memory, target.weight)


def _sent(raw: AnyArray) -> Plane:
    data = raw.view(np.uint8)
    return Plane(Layout("bytes", data.size, 8), data)


def _received(layout: Layout, width: int, widen: Callable[..., Any], infinite: int) -> tuple[Layout, Undo]:
    """The layout of floats of `width` bytes, and the undo by the kernel `widen`, which returns the largest."""

    def undo(plane: Plane, target: Target | None) -> Plane:
        values, weight = landing(layout.count, target)
        if widen(plane.data, values, weight) >= infinite:
            raise FrameError("non-finite", "the frame holds a NaN or an infinity")
        return Plane.reals(values)

    return Layout("bytes", layout.count * width, 8), undo


@dataclass(frozen=True)
class Plain(Stage):
    """Float32 as it is: 32 bits a value, exact."""

    name: ClassVar[str] = "none"
    example: ClassVar[str] = "none"
    takes: ClassVar[tuple[Kind, ...]] = ("reals",)
    gives: ClassVar[Kind | None] = "bytes"
    family: ClassVar[str] = "plain"
    undoes_in_place: ClassVar[bool] = True
    passes: ClassVar[float] = 1.0
    source: ClassVar[str] = "IEEE 754 binary32"

    @property
    def unbiased(self) -> bool:
        """Always: it is exact."""
        return True

    def bound(self, layout: Layout) -> float:  # noqa: ARG002 - the interface's arguments
        """Nothing is lost."""
        return 0.0

    def encode(self, plane: Plane, sink: Sink, context: Context) -> Plane:  # noqa: ARG002 - the interface's arguments
        """Little-endian float32."""
        return _sent(plane.data)

    def read(self, layout: Layout, source: Source) -> tuple[Layout, Undo]:  # noqa: ARG002 - as above
        """Four bytes a value."""
        return _received(layout, 4, float_kernels.deliver, _INFINITE)

    def tally(self, before: Tally) -> Tally:
        """32 bits a value."""
        return replace(before, bits=32.0)


@dataclass(frozen=True)
class Half(Stage):
    """Float16: 16 bits a value, 11 of them mantissa; values beyond 65504 are cut to it.

    Rounding to the nearest, ties to even, errs by at most 2**-11 of a value from 2**-14 on, by 2**-25 below. Stochastic
    rounding goes up with the probability of what is lost; it is unbiased for values within the range, and errs by up
    to twice as much.
    """

    rounding: Rounding = "nearest"

    name: ClassVar[str] = "fp16"
    example: ClassVar[str] = "fp16"
    takes: ClassVar[tuple[Kind, ...]] = ("reals",)
    gives: ClassVar[Kind | None] = "bytes"
    family: ClassVar[str] = "quantiser"
    undoes_in_place: ClassVar[bool] = True
    passes: ClassVar[float] = 1.0
    source: ClassVar[str] = "IEEE 754 binary16; Gupta et al. 2015, arXiv 1502.02551, section 3.1 (stochastic rounding)"

    @property
    def unbiased(self) -> bool:
        """With stochastic rounding, for values up to 65504."""
        return self.rounding == "stochastic"

    def bound(self, layout: Layout) -> float:  # noqa: ARG002 - the interface's arguments
        """To the nearest no value errs by more than itself, and tiny ones are lost; tiny ones rounded up have none."""
        return 1.0 if self.rounding == "nearest" else math.inf

    def encode(self, plane: Plane, sink: Sink, context: Context) -> Plane:  # noqa: ARG002 - the interface's arguments
        """Little-endian float16."""
        raw, halves = plane.data.view(np.uint32), np.empty(plane.layout.count, np.uint16)
        if self.rounding == "nearest":
            float_kernels.halve_nearest(raw, halves)
        else:
            float_kernels.halve_stochastic(raw, halves, *keys_of(context))
        return _sent(halves)

    def read(self, layout: Layout, source: Source) -> tuple[Layout, Undo]:  # noqa: ARG002 - as above
        """Two bytes a value."""
        return _received(layout, 2, float_kernels.widen_half, _INFINITE_HALF)

    def tally(self, before: Tally) -> Tally:
        """16 bits a value."""
        return replace(before, bits=16.0)


@dataclass(frozen=True)
class Brain(Stage):
    """Bfloat16, the upper half of a float32: 16 bits a value, 8 of them mantissa; never rounded up to infinity.

    Rounding to the nearest, ties to even, errs by at most 2**-8 of a value from 2**-126 on, by 2**-134 below.
    Stochastic rounding goes up with the probability of what is lost; it is unbiased for values up to the largest
    bfloat16, 0.996 of the largest float32, and errs by up to twice as much.
    """

    rounding: Rounding = "nearest"

    name: ClassVar[str] = "bf16"
    example: ClassVar[str] = "bf16"
    takes: ClassVar[tuple[Kind, ...]] = ("reals",)
    gives: ClassVar[Kind | None] = "bytes"
    family: ClassVar[str] = "quantiser"
    undoes_in_place: ClassVar[bool] = True
    passes: ClassVar[float] = 1.0
    source: ClassVar[str] = "Kalamkar et al. 2019, arXiv 1905.12322"

    @property
    def unbiased(self) -> bool:
        """With stochastic rounding, for values up to the largest bfloat16."""
        return self.rounding == "stochastic"

    def bound(self, layout: Layout) -> float:  # noqa: ARG002 - the interface's arguments
        """As with `Half`: denormals can be lost, or rounded up to many times their size."""
        return 1.0 if self.rounding == "nearest" else math.inf

    def encode(self, plane: Plane, sink: Sink, context: Context) -> Plane:  # noqa: ARG002 - the interface's arguments
        """The upper halves of the float32, little-endian."""
        raw, halves = plane.data.view(np.uint32), np.empty(plane.layout.count, np.uint16)
        if self.rounding == "nearest":
            float_kernels.brain_nearest(raw, halves)
        else:
            float_kernels.brain_stochastic(raw, halves, *keys_of(context))
        return _sent(halves)

    def read(self, layout: Layout, source: Source) -> tuple[Layout, Undo]:  # noqa: ARG002 - as above
        """Two bytes a value."""
        return _received(layout, 2, float_kernels.widen_brain, _INFINITE_BRAIN)

    def tally(self, before: Tally) -> Tally:
        """16 bits a value."""
        return replace(before, bits=16.0)
