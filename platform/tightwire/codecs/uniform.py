"""The affine quantiser."""

import struct
from dataclasses import dataclass, replace
from typing import ClassVar, Literal

import numpy as np

from tightwire.arrays import Bytes8, Flat
from tightwire.codecs import kernels
from tightwire.codecs.stage import Context, Kind, Layout, Plane, Stage, Tally, Target, Undo
from tightwire.errors import CodecError, FrameError
from tightwire.wire import packing
from tightwire.wire.streams import Sink, Source

_RANGE = struct.Struct("<ff")
_UNIT = 2.0**-24


@dataclass(frozen=True, slots=True)
class Affine:
    """x ~ low + code * step for codes 0 to 2**bits - 1, computed in float32, or float64 where float32 would overflow.

    Both ends derive it from the two float32 on the wire, so they agree on every bit.
    """

    low: np.floating
    step: np.floating
    inverse: np.floating

    @classmethod
    def spanning(cls, low: np.float32, high: np.float32, bits: int) -> "Affine":
        """The codes' range from `low` to `high`, both finite and in order."""
        top = 2**bits - 1
        span = float(high) - float(low)
        plain = max(abs(float(low)), abs(float(high))) < 2.0**125 and (span == 0 or span / top >= 2.0**-100)
        real = np.float32 if plain else np.float64
        return cls(real(low), real(span / top), real(top / span if span else 0.0))


def _noise_keys(key: int) -> tuple[np.uint32, np.uint32]:
    return np.uint32(key & 0xFFFFFFFF), np.uint32(key >> 32)


def quantise(values: Flat, affine: Affine, bits: int, key: int | None) -> Bytes8:
    """Packed codes of `values`; rounded stochastically with `key`, else to the nearest."""
    data = packing.empty(values.size, bits)
    words, tail = packing.split(data, values.size, bits)
    top = np.int32(2**bits - 1)
    real = type(affine.low)
    if key is None:
        half = real(0.5)
        kernels.quantise_nearest(values, affine.low, affine.inverse, half, top, bits, words, tail)
    else:
        unit = real(_UNIT)
        keys = _noise_keys(key)
        kernels.quantise_stochastic(values, affine.low, affine.inverse, unit, top, *keys, bits, words, tail)
    return data


@dataclass(frozen=True)
class Uniform(Stage):
    """Affine quantisation to 2**bits levels between the smallest and the largest value.

    With L = 2**bits - 1 and s = (max - min) / L, the code of x is floor((x - min) / s + u) and its value
    min + code * s, where u is uniform in [0, 1) for stochastic rounding and 1/2 for the nearest. The frame carries min
    and max as float32, from which both ends take zero point and scale. Stochastic rounding is unbiased with squared
    error at most n s**2 / 4; the nearest errs by at most s / 2 a value and wants error feedback.

    Raises:
        CodecError: When bits or rounding are out of range.
    """

    bits: int
    """1 to 16."""
    rounding: Literal["stochastic", "nearest"] = "stochastic"

    name: ClassVar[str] = "uniform"
    example: ClassVar[str] = "uniform(4)"
    takes: ClassVar[tuple[Kind, ...]] = ("reals",)
    gives: ClassVar[Kind | None] = "ints"
    family: ClassVar[str] = "quantiser"
    passes: ClassVar[float] = 2.0
    source: ClassVar[str] = "Konecny et al. 2016, arXiv 1610.05492, section 3"

    def __post_init__(self) -> None:
        if not 1 <= self.bits <= 16:
            raise CodecError(f"uniform takes 1 to 16 bits, got {self.bits}")

    @property
    def unbiased(self) -> bool:
        """With stochastic rounding."""
        return self.rounding == "stochastic"

    def encode(self, plane: Plane, sink: Sink, context: Context) -> Plane:
        """Eight bytes of range, and packed codes."""
        low, high = plane.extremes
        sink.write("scales", _RANGE.pack(low, high))
        affine = Affine.spanning(low, high, self.bits)
        data = quantise(plane.data, affine, self.bits, context.key if self.rounding == "stochastic" else None)
        return Plane(Layout("ints", plane.layout.count, self.bits), data)

    def read(self, layout: Layout, source: Source) -> tuple[Layout, Undo]:
        """The range, which bounds every value decoded."""
        low, high = np.frombuffer(source.take(_RANGE.size), "<f4").astype(np.float32)
        if not (np.isfinite(low) and np.isfinite(high)):
            raise FrameError("non-finite", f"a quantiser's range is from {low} to {high}")
        if low > high:
            raise FrameError("scales", f"a quantiser's range is empty, from {low} to {high}")
        affine = Affine.spanning(low, high, self.bits)

        def undo(plane: Plane, target: Target | None) -> Plane:
            into = target.memory if target is not None and target.weight is None else None
            values = np.empty(layout.count, np.float32) if into is None else into
            words, tail = packing.split(plane.data, layout.count, self.bits)
            kernels.dequantise(words, tail, self.bits, affine.low, affine.step, values)
            return Plane.reals(values)

        return Layout("ints", layout.count, self.bits), undo

    def tally(self, before: Tally) -> Tally:
        """`bits` a value and two floats."""
        return replace(before, bits=float(self.bits), side=before.side + 64.0)
