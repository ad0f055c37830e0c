"""The quantiser whose range the clients of a round share, so that the server adds integers."""

import math
import struct
from dataclasses import dataclass, replace
from typing import ClassVar

import numba
import numpy as np

from tightwire.arrays import AnyArray
from tightwire.codecs import kernels
from tightwire.codecs.stage import Context, Kind, Layout, Plane, Stage, Tally, Target, Undo
from tightwire.errors import CodecError, FrameError
from tightwire.wire import packing
from tightwire.wire.streams import Sink, Source
from tightwire.wire.words import add32

MANTISSA_BITS = 8
"""Bits of a step's integer mantissa."""
LEAST = -149
"""The exponent of the smallest float32."""
_STEP = struct.Struct("<f")
_UNIT = np.float64(2.0**-24)
_LARGEST = float(np.finfo(np.float32).max)


def step_for(peak: float, levels: int, least: int = LEAST) -> float:
    """The smallest step on the wire with which `levels` steps reach `peak`.

    A step is m * 2**e with an integer m of 8 bits and e >= `least`, so that its products with codes of up to 16 bits
    are exact in float32, and in every fixed-point format of at least -`least` fraction bits.

    Args:
        peak: Largest magnitude, finite, 0 or more.
        levels: Steps from 0 to it.
        least: The smallest exponent, `LEAST` or more.
    """
    wanted = peak / levels
    exponent = max(least, math.frexp(wanted)[1] - MANTISSA_BITS) if wanted else least
    step = max(1, math.ceil(math.ldexp(wanted, -exponent)))
    while math.ldexp(step, exponent) * levels > _LARGEST:
        step -= 1
    return math.ldexp(step, exponent)


def parts_of(step: float) -> tuple[int, int]:
    """(m, e) with step = m * 2**e, m an odd integer."""
    numerator, denominator = step.as_integer_ratio()
    zeros = (numerator & -numerator).bit_length() - 1
    return numerator >> zeros, zeros - (denominator.bit_length() - 1)


@dataclass(frozen=True)
class Joint(Stage):
    """Quantisation on a grid that all clients of a round share, so that the server adds codes and not reals.

    With L = 2**(bits - 1) - 1 the code of x is floor(x / s + u) + L, u uniform in [0, 1), and its value (code - L) s.
    Before they encode, clients send the largest magnitude of each tensor; the server answers with the step s for which
    L s covers them all, and s = m 2**e has an integer m of 8 bits, so that sums of codes times s are exact. Unbiased;
    the squared error is at most n s**2 / 4 in the mean; nothing is cut but magnitudes at the very end of float32.
    Relative to the values of a client that are far below the others' it has no bound, and one client with an absurd
    range coarsens everybody's grid for the round. Encoding without an agreed step takes the one for its own range.
    Costs 4 bytes a tensor here, 4 more each way to agree, and a round trip. In a run it stands first in its chain, or
    behind `flatten`, with nothing but entropy coding behind it.

    Raises:
        CodecError: When bits are out of range; on encoding, when the values exceed the agreed range.
    """

    bits: int
    """2 to 16."""

    name: ClassVar[str] = "joint"
    example: ClassVar[str] = "joint(8)"
    takes: ClassVar[tuple[Kind, ...]] = ("reals",)
    gives: ClassVar[Kind | None] = "ints"
    family: ClassVar[str] = "quantiser"
    passes: ClassVar[float] = 2.0
    source: ClassVar[str] = "Li et al. 2024, arXiv 2302.08545 (THC), section 4: uniform THC, without its rotation"

    def __post_init__(self) -> None:
        if not 2 <= self.bits <= 16:
            raise CodecError(f"joint takes 2 to 16 bits, got {self.bits}")

    @property
    def levels(self) -> int:
        """L: steps from 0 to the end of the range."""
        return (1 << (self.bits - 1)) - 1

    @property
    def unbiased(self) -> bool:
        """Always, but for what is cut at the end of float32."""
        return True

    @property
    def has_zero(self) -> bool:
        """The code in the middle."""
        return True

    def layout(self, count: int) -> Layout:
        """Of the codes of `count` values."""
        return Layout("ints", count, self.bits, zero=self.levels)

    def encode(self, plane: Plane, sink: Sink, context: Context) -> Plane:
        """Four bytes of step, and packed codes; `context.memory` is the agreed step, shape (1,)."""
        low, high = plane.extremes
        peak = max(abs(float(low)), abs(float(high)))
        step = step_for(peak, self.levels) if context.memory is None else float(context.memory[0])
        if context.memory is not None and peak > step * self.levels:
            raise CodecError(f"values up to {peak:g} exceed the agreed range, which ends at {step * self.levels:g}")
        sink.write("scales", _STEP.pack(step))
        values, count = plane.data, plane.layout.count
        if peak > step * self.levels:  # only where a step that covers the peak would overflow float32
            values = np.clip(values, np.float32(-step * self.levels), np.float32(step * self.levels))
        # A reciprocal below 1 / step, and by less than the noise resolves, keeps zeros and the ends of the range exact.
        inverse = np.nextafter(np.float64(1 / step), np.float64(0))
        codes = np.empty(count, np.uint32)
        keys = np.uint32(context.key & 0xFFFFFFFF), np.uint32(context.key >> 32)
        _quantise(values, np.float64(-step * self.levels), inverse, *keys, codes)
        return Plane(self.layout(count), packing.pack(codes, self.bits))

    def read(self, layout: Layout, source: Source) -> tuple[Layout, Undo]:
        """The step, which must be one that `encode` could have written."""
        step = self.read_step(source)

        def undo(plane: Plane, target: Target | None) -> Plane:
            into = target.memory if target is not None and target.weight is None else None
            values = np.empty(layout.count, np.float32) if into is None else into
            _restore(self.codes(plane, layout.count), np.int32(self.levels), np.float32(step), values)
            return Plane.reals(values)

        return self.layout(layout.count), undo

    def codes(self, plane: Plane, count: int) -> AnyArray:
        """The codes of a packed plane, shape (count,).

        Raises:
            FrameError: ``codes`` for the one code that no encoder writes, 2**bits - 1.
        """
        codes = packing.unpack(plane.data, count, self.bits)
        if codes.max(initial=0) > 2 * self.levels:
            raise FrameError("codes", f"a code is {codes.max()}, the largest is {2 * self.levels}")
        return codes

    def read_step(self, source: Source) -> float:
        """The step on the wire.

        Raises:
            FrameError: ``non-finite`` or ``scales`` when it is none.
        """
        (step,) = _STEP.unpack(source.take(_STEP.size))
        if not math.isfinite(step):
            raise FrameError("non-finite", f"a step is {step}")
        if step <= 0 or step * self.levels > _LARGEST or parts_of(step)[0] >= 2**MANTISSA_BITS:
            raise FrameError("scales", f"a step is m * 2**e with m from 1 to 255, got {step:g}")
        return float(step)

    def tally(self, before: Tally) -> Tally:
        """`bits` a value and one float."""
        return replace(before, bits=float(self.bits), side=before.side + 32.0)


@numba.njit(cache=True, nogil=True)
def _quantise(values, low, inverse, k0, k1, codes):  # type: ignore[no-untyped-def]  # numba infers the types
    """The codes of `values`, which are in range, rounded up with the probability of their fraction."""
    walk = np.uint32(0)
    for i in range(values.size):
        x = (np.float64(values[i]) - low) * inverse
        code = np.int32(x)
        above = np.int32(np.float64(kernels.noise(walk, k0, k1)) * _UNIT < x - np.float64(code))
        codes[i] = np.uint32(np.int32(code + above))
        walk = add32(walk, kernels.STEP)


@numba.njit(cache=True, nogil=True)
def _restore(codes, levels, step, out):  # type: ignore[no-untyped-def]  # numba infers the types
    """The values of `codes`, exactly."""
    for i in range(codes.size):
        out[i] = np.float32(np.int32(np.int32(codes[i]) - levels)) * step
