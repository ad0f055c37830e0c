"""Floats of few bits with a scale for each group of values, as packed codes in the order of their values."""

import math
from dataclasses import dataclass

import numpy as np

from tightwire.arrays import Bytes8, Flat
from tightwire.codecs import minifloat_kernels as kernels
from tightwire.codecs.floats import landing
from tightwire.codecs.kernels import peaks
from tightwire.codecs.stage import Layout, Plane, Target, Undo
from tightwire.errors import FrameError
from tightwire.wire import packing


@dataclass(frozen=True, slots=True)
class Scales:
    """What each group's values are multiplied by, in two factors, so that no product over- or underflows.

    All of shape (groups,).
    """

    first: Flat
    second: Flat
    largest: Flat
    """Decoded magnitudes are cut to it; only decoders look."""


@dataclass(frozen=True, slots=True)
class MiniFloat:
    """A format: sign, exponent and mantissa, with denormals, and without infinities.

    The magnitude of bits m is m * least below 2**mantissa, and (1 + fraction) * 2**(exponent - bias) above, where m is
    the exponent followed by `mantissa` bits of fraction. The code is `zero` plus or minus m.
    """

    bits: int
    """Of a code, the sign included."""
    mantissa: int
    bias: int
    top: int
    """The largest m, below 2**(bits - 1)."""

    @property
    def zero(self) -> int:
        """The code of 0."""
        return 1 << (self.bits - 1)

    @property
    def least(self) -> float:
        """The smallest magnitude."""
        return math.ldexp(1.0, 1 - self.bias - self.mantissa)

    @property
    def largest(self) -> float:
        """The largest magnitude."""
        exponent, fraction = divmod(self.top, 1 << self.mantissa)
        return math.ldexp((1 << self.mantissa) + fraction, exponent - self.bias - self.mantissa)

    @property
    def _shift(self) -> np.uint32:
        return np.uint32(23 - self.mantissa)

    @property
    def _base(self) -> np.uint32:
        return np.uint32((127 - self.bias) << 23)

    def layout(self, count: int) -> Layout:
        """Of `count` codes."""
        return Layout("ints", count, self.bits, zero=self.zero)

    def bound(self, length: int, peak: float, *, stochastic: bool) -> float:
        """The largest expected squared error, relative, over groups of `length` values whose largest is `peak` or more.

        A value between neighbours a and a (1 + u) errs most, relatively, at their harmonic mean if it is rounded
        stochastically: by u**2 / (4 (1 + u)); else halfway. Below the smallest normal the error is at most half of
        `least`, and one value, the largest, is not there.
        """
        step = math.ldexp(1.0, -self.mantissa)
        relative = step**2 / (4 * (1 + step)) if stochastic else (step / (2 + step)) ** 2
        return relative + (length - 1) * (self.least / 2 / peak) ** 2

    def encode(self, values: Flat, length: int, scales: Scales, keys: tuple[np.uint32, np.uint32] | None) -> Plane:
        """Codes of `values`, shape (n,), in groups of `length`; to the nearest where keys is None."""
        data = packing.empty(values.size, self.bits)
        kernels.narrow(
            values,
            length,
            scales.first,
            scales.second,
            self._shift,
            self._base,
            np.float32(1 / self.least),
            np.uint32(self.top),
            np.int32(self.zero),
            keys,
            self.bits,
            *packing.split(data, values.size, self.bits),
        )
        return Plane(self.layout(values.size), data)

    def undo(self, count: int, length: int, scales: Scales) -> Undo:
        """The inverse of `encode`: the scales are here what the narrow floats are multiplied by."""

        def undo(plane: Plane, target: Target | None) -> Plane:
            values, weight = landing(count, target)
            if self._decode(plane.data, length, scales, values, weight) > self.top:
                raise FrameError(
                    "codes", f"a code stands for no number; {self.bits} bits have {2 * self.top + 1} codes"
                )
            return Plane.reals(values)

        return undo

    def _decode(self, data: Bytes8, length: int, scales: Scales, out: Flat, weight: np.float32 | None) -> int:
        most = kernels.widen(
            *packing.split(data, out.size, self.bits),
            self.bits,
            length,
            scales.first,
            scales.second,
            scales.largest,
            self._shift,
            self._base,
            np.float32(self.least),
            np.int32(self.zero),
            weight,
            out,
        )
        return int(most)


def group_peaks(plane: Plane, length: int) -> Flat:
    """The largest magnitude of each group of `length` reals, shape (groups,)."""
    return peaks(plane.group_extremes(length))
