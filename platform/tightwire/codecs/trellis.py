"""The trellis-coded quantiser: dependent scalar quantisation."""

import math
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
import numpy.typing as npt

from tightwire.arrays import AnyArray, Bytes8, Flat, Ints
from tightwire.codecs import sums, trellis_classes
from tightwire.codecs import trellis_kernels as kernels
from tightwire.codecs.groups import Per, check_groups, group_count, group_length
from tightwire.codecs.stage import Context, Kind, Layout, Plane, Stage, Tally, Target, Undo
from tightwire.errors import CodecError, FrameError
from tightwire.wire.packing import pack, unpack
from tightwire.wire.streams import Sink, Source, varint

Codes = npt.NDArray[np.int16]
"""Codes, times 2, plus the number of the quantiser that each was made with; shape (n,)."""

MAX_BITS = 12
"""Of a code, so that entropy coders take them."""
TAPS = {4: (0o5, 0o2), 8: (0o13, 0o04), 16: (0o23, 0o04), 32: (0o45, 0o10)}
"""Parity check polynomials h0 and h1 of the trellises, by states (Ungerboeck 1982, table I)."""

_WEIGHT = 0.5
"""A code's bit costs as much as this many squared steps; the best at all rates to within 0.002 bits a value."""
_SAMPLE = 32749
"""Values that tell how long codes will be; prime, so that no tensor's rows are in step with it."""
_TURNS = 5
"""Quantisations of the sample, each with the code lengths that the one before it led to."""
_LANES = 64
"""Lanes of the sample."""
_ROWS = 1024
"""Rows of a lane, or more: each lane starts in a state that did not suit its values, which costs it two bits."""
_LARGEST = float(np.finfo(np.float32).max)
_RATES = (0.5, 0.91, 1.23, 1.63, 1.97, 2.31, 2.75, 3.35, 4.36, 5.37, 7.69, 10.0)
_STEPS = (1.23, 1.0, 0.8, 0.62, 0.5, 0.4, 0.3, 0.2, 0.1, 0.05, 0.01, 0.002)
"""Steps at which a million Gaussian values take `_RATES` bits each."""


@dataclass(frozen=True, slots=True)
class Trellis:
    """A machine whose state says which quantiser is next: state & 1.

    A code of parity p leads from state s to (s >> 1) ^ (h0 >> 1 where s is odd) ^ (h1 >> 1 where p is odd).
    """

    states: int
    taps0: np.int32
    taps1: np.int32
    marks: AnyArray
    """1 << state, for every state."""

    @classmethod
    def of(cls, states: int) -> "Trellis":
        """The trellis with that number of states, one of `TAPS`."""
        h0, h1 = TAPS[states]
        kind = np.uint8 if states <= 8 else np.uint32
        return cls(states, np.int32(h0 >> 1), np.int32(h1 >> 1), (1 << np.arange(states)).astype(kind))


def lane_count(n: int) -> int:
    """Into how many interleaved lanes `n` values are dealt: a power of two."""
    return 1 << min(max(1, n // _ROWS), kernels.LANES).bit_length() - 1


def penalties(grid: Flat, classes: Bytes8, kinds: int, peak: float, trellis: Trellis) -> Flat:
    """What the codes of values like `grid`, at most `peak`, in so many classes, will cost, for `kernels.search`."""
    size = min(grid.size, _SAMPLE)
    seen, theirs, codes = np.empty(size, np.float32), np.empty(size, np.uint8), np.empty(size, np.int16)
    kernels.sample(grid, seen)
    kernels.sample(classes, theirs)
    cells, lanes = int(peak) + 2, min(_LANES, size)
    counts, costs = np.zeros((2 * kinds, cells // 2 + 2), np.int64), np.empty((kinds, cells, 4), np.float32)
    kernels.guess(seen, theirs, counts)
    kernels.penalise(counts, _WEIGHT, costs)
    for _ in range(_TURNS):
        kernels.search(seen, theirs, lanes, trellis.taps0, trellis.taps1, costs, trellis.marks, codes)
        counts[:] = 0
        kernels.count(codes, theirs, counts)
        kernels.penalise(counts, _WEIGHT, costs)
    return costs


@dataclass(frozen=True)
class TrellisCoded(Stage):
    """Quantises with two quantisers that take turns after a trellis, on the path of least error and rate.

    With a step D, quantiser 0 has the values 2kD for integers k, quantiser 1 the values (2k - sign k)D. The parity of
    every k moves a machine whose state says which quantiser is next, so neighbours share a lattice denser than either.
    Viterbi's search minimises squared error + D^2 / 2 for every bit of the codes, whose lengths it learns on a sample.
    D is `step` times the root mean square of the values that share it, or fits Gaussian values into `bits` bits; the
    decoder's D is then the one with the least squared error. Codes come in parts, one for each quantiser and class of
    values (`tightwire.codecs.trellis_classes`): rows and columns of real updates differ in scale, which saves a tenth
    to a third of their bits, for half a byte a row and a column; keep tensors apart (no ``flatten``) for it.

    Costs a search over all states, some thirty times what rounding costs, only for the encoder. Behind it belongs an
    entropy coder: then Gaussian values take 0.08 to 0.1 bits a value more than the rate-distortion bound (8 states),
    where rounding takes 0.25 more. Biased; squared error at most the squared norm, so it wants error feedback.

    Raises:
        CodecError: When not exactly one of `bits` and `step` is given, or one is out of range.
    """

    bits: float | None = None
    """Bits a value behind an entropy coder, for Gaussian values; 0.5 to 10."""
    step: float | None = None
    """D over the root mean square; 0.001 to 2."""
    states: int = 8
    """4, 8, 16 or 32: each doubling saves about 0.01 bits a value."""
    per: Per = "tensor"
    """What has a step of its own."""
    bucket: int = 0
    """Values that share a step; 0 for all of a tensor's."""

    name: ClassVar[str] = "trellis"
    example: ClassVar[str] = "trellis(3)"
    takes: ClassVar[tuple[Kind, ...]] = ("reals",)
    gives: ClassVar[Kind | None] = "ints"
    family: ClassVar[str] = "quantiser"
    passes: ClassVar[float] = 24.0
    source: ClassVar[str] = (
        "Marcellin and Fischer 1990, IEEE Trans. Communications 38(1); with two quantisers and parities: "
        "Schwarz et al. 2019, Data Compression Conference, and ISO/IEC 15938-17"
    )

    def __post_init__(self) -> None:
        if (self.bits is None) == (self.step is None):
            raise CodecError(f"trellis takes either bits a value or a step, got bits={self.bits} and step={self.step}")
        if self.bits is not None and not _RATES[0] <= self.bits <= _RATES[-1]:
            raise CodecError(f"trellis takes {_RATES[0]} to {_RATES[-1]:.0f} bits a value, got {self.bits}")
        if self.step is not None and not 0.001 <= self.step <= 2:
            raise CodecError(f"trellis takes a step of 0.001 to 2 times the root mean square, got {self.step}")
        if self.states not in TAPS:
            raise CodecError(f"trellis takes {', '.join(map(str, TAPS))} states, got {self.states}")
        check_groups("trellis", self.per, self.bucket)

    @property
    def relative_step(self) -> float:
        """D over the root mean square."""
        if self.step is not None:
            return self.step
        logarithm = np.interp(float(self.bits or 0), _RATES, np.log2(_STEPS))
        return float(f"{2.0**logarithm:.4g}")

    @property
    def unbiased(self) -> bool:
        """Never."""
        return False

    def bound(self, layout: Layout) -> float:  # noqa: ARG002 - the same for all
        """With the best step for the codes, zeros would be no better."""
        return 1.0

    def looks(self, layout: Layout) -> int | None:
        """The groups, for their largest magnitudes."""
        return group_length(layout, self.per, self.bucket)

    def encode(self, plane: Plane, sink: Sink, context: Context) -> Plane:  # noqa: ARG002 - the interface's arguments
        """Width of the codes (a byte), classes, lengths of the parts, and steps; the codes to the next stage."""
        n, length = plane.layout.count, group_length(plane.layout, self.per, self.bucket)
        trellis = Trellis.of(self.states)
        spread = sums.norms(plane.data, length) / np.sqrt(sums.group_sizes(n, length))
        peaks = np.abs(plane.group_extremes(length).astype(np.float64)).max(axis=1)
        steps = np.maximum(self.relative_step * spread, peaks / kernels.PEAK)
        inverses = np.divide(1.0, steps, out=np.zeros_like(steps), where=steps > 0)
        grid, codes = np.empty(n, np.float32), np.empty(n, np.int16)
        kernels.to_grid(plane.data, length, inverses, grid)
        peak = float((peaks * inverses).max())
        divided = trellis_classes.choose(grid, plane.layout, int(peak) // 2 + 1, _SAMPLE)
        classes = divided.of(n)
        costs = penalties(grid, classes, divided.count, peak, trellis)
        kernels.search(grid, classes, lane_count(n), trellis.taps0, trellis.taps1, costs, trellis.marks, codes)
        products, squares = np.empty_like(steps), np.empty_like(steps)
        kernels.fit(grid, length, codes, products, squares)
        steps *= np.divide(products, squares, out=np.zeros_like(steps), where=squares > 0)
        lengths = np.zeros(2 * divided.count, np.int64)
        width = int(kernels.survey(codes, classes, lengths)).bit_length() + 1
        sink.write("scales", bytes([width]))
        divided.write(sink)
        sink.write("scales", b"".join(varint(int(length)) for length in lengths[::2]))
        sink.write("scales", np.clip(steps, 0, _LARGEST).astype("<f4").tobytes())
        parted = np.empty(n, np.uint32)
        kernels.part(codes, classes, _starts(lengths), _zero(width), parted)
        return Plane(_layout(n, width, lengths), pack(parted, width))

    def read(self, layout: Layout, source: Source) -> tuple[Layout, Undo]:
        """Width, classes, lengths of the parts, and steps, which are finite and not negative."""
        n, length = layout.count, group_length(layout, self.per, self.bucket)
        width = source.byte()
        if not 1 <= width <= MAX_BITS:
            raise FrameError("scales", f"codes of a trellis have 1 to {MAX_BITS} bits, got {width}")
        divided = trellis_classes.read(layout, source)
        firsts = np.array([source.varint() for _ in range(divided.count)])
        seconds = divided.sizes(n) - firsts
        if (seconds < 0).any():
            raise FrameError("scales", f"a class has {-seconds.min()} codes of the first quantiser more than values")
        lengths = np.stack([firsts, seconds], axis=1).ravel()
        steps = np.frombuffer(source.take(4 * group_count(n, length)), "<f4").astype(np.float32)
        if not np.isfinite(steps).all():
            raise FrameError("non-finite", "a quantiser's step is not finite")
        if (steps < 0).any():
            raise FrameError("scales", f"a quantiser's step is {steps.min()}; 0 or more is right")
        trellis = Trellis.of(self.states)

        def undo(plane: Plane, target: Target | None) -> Plane:
            codes, starts = unpack(plane.data, n, width), _starts(lengths)
            values = np.empty(n, np.float32) if target is None or target.weight is not None else target.memory
            lanes = lane_count(n)
            kernels.join(codes, divided.of(n), starts, _zero(width), lanes, trellis.taps0, trellis.taps1, values)
            if (starts != np.cumsum(lengths)).any():
                raise FrameError("codes", "the walk through the trellis does not take as many codes as there are")
            kernels.scale(values, length, steps)
            return Plane.reals(values)

        return _layout(n, width, lengths), undo

    def tally(self, before: Tally) -> Tally:
        """The bits that Gaussian values take, and a float for every step."""
        bits = np.interp(-math.log2(self.relative_step), -np.log2(_STEPS), _RATES)
        groups = group_count(
            before.kept, group_length(Layout("reals", before.kept, 32, before.shape), self.per, self.bucket)
        )
        return replace(before, bits=float(bits), side=before.side + 32.0 * groups)


def _zero(width: int) -> np.int32:
    return np.int32(1 << width - 1)


def _starts(lengths: Ints) -> Ints:
    return np.cumsum(lengths) - lengths


def _layout(n: int, width: int, lengths: Ints) -> Layout:
    parts = tuple(int(length) for length in lengths if length)
    return Layout("ints", n, width, zero=int(_zero(width)), parts=parts if len(parts) > 1 else ())
