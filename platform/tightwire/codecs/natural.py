"""Natural compression: powers of two."""

import math
from dataclasses import dataclass, replace
from typing import ClassVar

import numba
import numpy as np

from tightwire.arrays import Flat, Ints
from tightwire.codecs.floats import keys_of
from tightwire.codecs.groups import Per, check_groups, group_count, group_length
from tightwire.codecs.minifloat import MiniFloat, Scales, group_peaks
from tightwire.codecs.stage import Context, Kind, Layout, Plane, Stage, Tally, Undo
from tightwire.errors import CodecError, FrameError
from tightwire.wire.streams import Sink, Source

LEAST = -149
"""The exponent of the smallest float32."""
MOST = 128
"""The exponent that the largest float32 is rounded up to."""
_NORMAL = 126
"""Two to this power and its inverse are normal float32."""
_LARGEST = np.finfo(np.float32).max


@numba.njit(cache=True, nogil=True)
def _exponents(peaks, out):  # type: ignore[no-untyped-def]  # numba infers the types
    for group in range(peaks.size):
        mantissa, exponent = math.frexp(np.float64(peaks[group]))
        out[group] = exponent - (mantissa == 0.5) if peaks[group] > 0 else LEAST - 1


@numba.njit(cache=True, nogil=True)
def _powers(top, out):  # type: ignore[no-untyped-def]  # numba infers the types
    for group in range(top.size):
        half = 0 if abs(top[group]) <= _NORMAL else top[group] // 2
        out[0, group] = 0.0 if top[group] < LEAST else math.ldexp(1.0, half)
        out[1, group] = math.ldexp(1.0, top[group] - half)
        out[2, group] = _LARGEST


def exponents(peaks: Flat) -> Ints:
    """The smallest a with 2**a >= each of the peaks; below `LEAST` for 0."""
    found = np.empty(peaks.size, np.int64)
    _exponents(peaks, found)
    return found


def powers(top: Ints) -> Scales:
    """2**top in two factors that are normal floats, the first of them 1 where it can be; 0 where all values are 0."""
    found = np.empty((3, top.size), np.float32)
    _powers(top, found)
    return Scales(found[0], found[1], found[2])


@dataclass(frozen=True)
class Natural(Stage):
    """Natural compression C_nat: each value is rounded to a power of two, up or down at random.

    For 2**a <= |x| < 2**(a+1), x becomes sign(x) 2**(a+1) with the probability (|x| - 2**a) / 2**a, else sign(x) 2**a;
    0 stays 0. With L = 2**(bits - 1) - 1 the code is the sign and the exponent as one of L levels up to that of the
    largest magnitude, rounded up; what is below the last level becomes that or 0, at random. Unbiased; the squared
    error is at most 1/8 + (n - 1) 4**(1 - L) of the squared norm, so 8 bits lose nothing to C_nat, and 5 bits hardly
    anything. Costs `bits` a value, about 3.6 on Gaussian values with an entropy coder behind, and 2 bytes a group. A
    value of 2**127 or more that is rounded up becomes the largest float32. The codes are in the order of the values.

    Raises:
        CodecError: When bits are out of range, channels and buckets are wanted together, or the bucket is negative.
    """

    bits: int = 8
    """2 to 8, the sign included."""
    per: Per = "tensor"
    bucket: int = 0
    """Values that share a largest exponent; 0 for none but `per`."""

    name: ClassVar[str] = "natural"
    example: ClassVar[str] = "natural"
    takes: ClassVar[tuple[Kind, ...]] = ("reals",)
    gives: ClassVar[Kind | None] = "ints"
    family: ClassVar[str] = "quantiser"
    passes: ClassVar[float] = 2.0
    source: ClassVar[str] = "Horvath et al. 2019, arXiv 1905.10988, definition 1 and theorem 1"

    def __post_init__(self) -> None:
        if not 2 <= self.bits <= 8:
            raise CodecError(f"natural takes 2 to 8 bits, got {self.bits}")
        check_groups(self.name, self.per, self.bucket)

    @property
    def levels(self) -> int:
        """L: powers of two that can be sent."""
        return (1 << (self.bits - 1)) - 1

    @property
    def unbiased(self) -> bool:
        """Always."""
        return True

    @property
    def has_zero(self) -> bool:
        """The code in the middle."""
        return True

    def looks(self, layout: Layout) -> int | None:
        """The groups, for their largest magnitudes."""
        return group_length(layout, self.per, self.bucket)

    @property
    def format(self) -> MiniFloat:
        """Floats without mantissa, the largest of which is 1."""
        return MiniFloat(self.bits, 0, self.levels, self.levels)

    def bound(self, layout: Layout) -> float:
        """As the class says, for the values of a group."""
        return self.format.bound(group_length(layout, self.per, self.bucket), 0.5, stochastic=True)

    def encode(self, plane: Plane, sink: Sink, context: Context) -> Plane:
        """Each group's largest exponent, rounded up, less `LEAST`, plus 1, or 0 where all values are; and codes."""
        length = group_length(plane.layout, self.per, self.bucket)
        top = exponents(group_peaks(plane, length))
        sink.write("scales", (top - LEAST + 1).astype("<u2").tobytes())
        return self.format.encode(plane.data, length, powers(np.where(top < LEAST, top, -top)), keys_of(context))

    def read(self, layout: Layout, source: Source) -> tuple[Layout, Undo]:
        """The largest exponents."""
        length = group_length(layout, self.per, self.bucket)
        sent = source.array(2 * group_count(layout.count, length)).view("<u2").astype(np.int64)
        if sent.max() > MOST - LEAST + 1:
            raise FrameError("scales", f"an exponent is beyond {MOST}")
        scales = powers(sent - 1 + LEAST)
        return self.format.layout(layout.count), self.format.undo(layout.count, length, scales)

    def tally(self, before: Tally) -> Tally:
        """`bits` a value, and 9 bits of exponent a group."""
        layout = Layout("reals", before.kept, 32, before.shape)
        groups = group_count(before.kept, group_length(layout, self.per, self.bucket))
        return replace(before, bits=float(self.bits), side=before.side + 9.0 * groups)
