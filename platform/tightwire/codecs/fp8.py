"""Eight-bit floats."""

from dataclasses import dataclass, replace
from typing import ClassVar, Literal

import numba
import numpy as np

from tightwire.arrays import Flat
from tightwire.codecs.floats import keys_of
from tightwire.codecs.groups import Per, check_groups, group_count, group_length
from tightwire.codecs.minifloat import MiniFloat, Scales, group_peaks
from tightwire.codecs.stage import Context, Kind, Layout, Plane, Stage, Tally, Undo
from tightwire.errors import FrameError
from tightwire.wire.streams import Sink, Source

FORMATS = {"e4m3": MiniFloat(8, 3, 7, 0x7E), "e5m2": MiniFloat(8, 2, 15, 0x7B)}
"""By the source's table 1: E4M3 reaches 448, E5M2 57344; what stands for infinity or NaN is no code here."""

_TINY = np.float64(2.0**-60)
_RAISE = np.float64(2.0**100)


@numba.njit(cache=True, nogil=True)
def _narrow(peaks, largest, out):  # type: ignore[no-untyped-def]  # numba infers the types
    for group in range(peaks.size):
        first = _RAISE if peaks[group] < _TINY else 1.0
        raised = np.float32(peaks[group] * first)
        out[0, group] = first
        out[1, group] = largest / raised if raised > 0 else np.float32(0)


def _raised(peaks: Flat) -> tuple[Flat, Flat]:
    """(power of two, peaks times it): tiny peaks are raised to where their scales have all their bits."""
    raised = np.where(peaks < _TINY, _RAISE, 1.0)
    return raised.astype(np.float32), (peaks * raised).astype(np.float32)


def to_narrow(peaks: Flat, largest: float) -> Scales:
    """What takes groups of values with these `peaks` to the range up to `largest`."""
    found = np.empty((2, peaks.size), np.float32)
    _narrow(peaks, np.float32(largest), found)
    return Scales(found[0], found[1], peaks)


def from_narrow(peaks: Flat, largest: float) -> Scales:
    """The way back, rounded so that `largest` comes to the peak, where it is cut."""
    first, raised = _raised(peaks)
    exact = raised / np.float64(largest)
    scale = exact.astype(np.float32)
    scale = np.where(scale < exact, np.nextafter(scale, np.float32(np.inf)), scale)
    return Scales(scale, (1 / first).astype(np.float32), peaks)


@dataclass(frozen=True)
class Fp8(Stage):
    """Float8: 8 bits a value, in one of two formats, scaled so that the largest magnitude is the largest float8.

    e4m3 has 3 bits of mantissa and resolves magnitudes down to 2**-17.8 of the largest, e5m2 has 2 bits and goes down
    to 2**-31.8. A group of values has one scale, its largest magnitude m: x is sent as the float8 next to x L / m,
    where L is 448 or 57344. Stochastic rounding goes up with the probability of what is lost and is unbiased; its
    squared error is at most 1/288 of the squared norm for e4m3 and 1/80 for e5m2, plus (n - 1) 2**-37.6 or 2**-65.6 of
    it. Rounding to the nearest, ties to even, has 1/289 and 1/81, and wants error feedback. Costs 8 bits a value and 4
    bytes a group. The codes are in the order of the values, 128 for 0.

    Raises:
        CodecError: When channels and buckets are wanted together, or the bucket is negative.
    """

    format: Literal["e4m3", "e5m2"] = "e4m3"
    rounding: Literal["stochastic", "nearest"] = "stochastic"
    per: Per = "tensor"
    bucket: int = 0
    """Values that share a scale; 0 for none but `per`."""

    name: ClassVar[str] = "fp8"
    example: ClassVar[str] = "fp8"
    takes: ClassVar[tuple[Kind, ...]] = ("reals",)
    gives: ClassVar[Kind | None] = "ints"
    family: ClassVar[str] = "quantiser"
    passes: ClassVar[float] = 2.0
    source: ClassVar[str] = (
        "Micikevicius et al. 2022, arXiv 2209.05433, table 1 (formats); Wang et al. 2024, arXiv 2407.02610 "
        "(scaled by the largest magnitude, stochastic on the wire)"
    )

    def __post_init__(self) -> None:
        check_groups(self.name, self.per, self.bucket)

    @property
    def unbiased(self) -> bool:
        """With stochastic rounding."""
        return self.rounding == "stochastic"

    @property
    def has_zero(self) -> bool:
        """The code in the middle."""
        return True

    def looks(self, layout: Layout) -> int | None:
        """The groups, for their largest magnitudes."""
        return group_length(layout, self.per, self.bucket)

    @property
    def _format(self) -> MiniFloat:
        return FORMATS[self.format]

    def bound(self, layout: Layout) -> float:
        """As the class says, for the values of a group."""
        length = group_length(layout, self.per, self.bucket)
        return self._format.bound(length, self._format.largest, stochastic=self.unbiased)

    def encode(self, plane: Plane, sink: Sink, context: Context) -> Plane:
        """Each group's largest magnitude as float32, and codes."""
        length = group_length(plane.layout, self.per, self.bucket)
        peaks = group_peaks(plane, length)
        sink.write("scales", peaks.tobytes())
        scales = to_narrow(peaks, self._format.largest)
        return self._format.encode(plane.data, length, scales, keys_of(context) if self.unbiased else None)

    def read(self, layout: Layout, source: Source) -> tuple[Layout, Undo]:
        """The largest magnitudes, which bound what is decoded."""
        length = group_length(layout, self.per, self.bucket)
        peaks = source.array(4 * group_count(layout.count, length)).view(np.float32)
        if not np.isfinite(peaks).all():
            raise FrameError("non-finite", "a largest magnitude is not finite")
        if np.signbit(peaks).any():
            raise FrameError("scales", "a largest magnitude is negative")
        scales = from_narrow(peaks, self._format.largest)
        return self._format.layout(layout.count), self._format.undo(layout.count, length, scales)

    def tally(self, before: Tally) -> Tally:
        """8 bits a value, and one float a group."""
        layout = Layout("reals", before.kept, 32, before.shape)
        groups = group_count(before.kept, group_length(layout, self.per, self.bucket))
        return replace(before, bits=8.0, side=before.side + 32.0 * groups)
