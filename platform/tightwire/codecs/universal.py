"""Entropy coding without a model on the wire but a parameter or two: Elias, Golomb-Rice, and run-length codes."""

from abc import abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar, Literal

from tightwire.arrays import Bytes8
from tightwire.codecs.stage import Context, Kind, Layout, Plane, Stage, Tally, Target, Undo
from tightwire.errors import CodecError, FrameError
from tightwire.wire import elias, golomb, modes, runs
from tightwire.wire.forms import Form, Reading, Values
from tightwire.wire.packing import pack, unpack
from tightwire.wire.prefix import GAMMA, MAX_BITS, OMEGA
from tightwire.wire.streams import Sink, Source

MAX_COUNT = 2**31
"""Planes of so many codes stay packed."""


def values_of(plane: Plane) -> Values | None:
    """The codes of a plane; None where there are too many, or they have too many bits, to be coded here."""
    layout = plane.layout
    if layout.bits > MAX_BITS or layout.count >= MAX_COUNT:
        return None
    return Values(unpack(plane.data, layout.count, layout.bits), layout.bits, layout.zero or 0)


def sent(data: Bytes8) -> Plane:
    """Final bytes as a plane."""
    return Plane(Layout("bytes", data.size, 8), data)


def packed(layout: Layout) -> tuple[Layout, Undo]:
    """What `Stage.read` gives for codes that stayed packed."""
    return Layout("bytes", layout.length, 8), lambda plane, _: Plane(layout, plane.data)


def coded(layout: Layout, reading: Reading) -> tuple[Layout, Undo]:
    """What `Stage.read` gives for codes that did not.

    Raises:
        FrameError: ``length`` when they are not shorter for it.
    """
    if reading.length >= layout.length:
        raise FrameError("length", f"{reading.length} coded bytes stand for codes that pack to {layout.length}")

    def undo(plane: Plane, target: Target | None) -> Plane:  # noqa: ARG001 - the interface's arguments
        return Plane(layout, pack(reading.decode(plane.data), layout.bits))

    return Layout("bytes", reading.length, 8), undo


def unknown(mode: int, stage: Stage) -> FrameError:
    """The error for a first byte that `stage` does not write."""
    return FrameError("tables", f"'{stage}' writes no plane whose first byte is {mode}")


class Universal(Stage):
    """A lossless stage that knows the exact sizes of its forms beforehand and writes the smallest.

    Codes stay packed, for one byte, where no form is smaller, or they have more than 16 bits.
    """

    takes: ClassVar[tuple[Kind, ...]] = ("ints",)
    gives: ClassVar[Kind | None] = "bytes"
    family: ClassVar[str] = "entropy"
    passes: ClassVar[float] = 3.0

    @property
    def unbiased(self) -> bool:
        """Always: it is lossless."""
        return True

    def bound(self, layout: Layout) -> float:  # noqa: ARG002 - the interface's arguments
        """Nothing is lost."""
        return 0.0

    @property
    @abstractmethod
    def firsts(self) -> tuple[int, ...]:
        """First bytes of its forms."""

    @abstractmethod
    def forms(self, values: Values) -> Iterator[Form]:
        """The forms that come into question."""

    @abstractmethod
    def reading(self, mode: int, layout: Layout, source: Source) -> Reading:
        """What comes behind the first byte `mode`, one of this stage's, of a form for codes of `layout`.

        Raises:
            FrameError: For what cannot be.
        """

    def best(self, values: Values) -> Form | None:
        """The smallest form; None when packing is no larger."""
        form = min(self.forms(values), key=lambda form: form.size, default=None)
        return form if form and form.size <= values.packed else None

    def encode(self, plane: Plane, sink: Sink, context: Context) -> Plane:  # noqa: ARG002 - the interface's arguments
        """A few bytes of parameters, and the coded bytes."""
        values = values_of(plane)
        form = self.best(values) if values else None
        sink.write("tables", form.tables if form else bytes([modes.PACKED]))
        return sent(form.write() if form else plane.data)

    def read(self, layout: Layout, source: Source) -> tuple[Layout, Undo]:
        """The parameters, and how many bytes were coded: fewer than packed."""
        mode = source.byte()
        if mode == modes.PACKED:
            return packed(layout)
        if mode not in self.firsts or layout.bits > MAX_BITS or layout.count >= MAX_COUNT:
            raise unknown(mode, self)
        return coded(layout, self.reading(mode, layout, source))

    def tally(self, before: Tally) -> Tally:
        """Papers count the codes it takes."""
        return before


@dataclass(frozen=True)
class Elias(Universal):
    """QSGD's Elias coding of a code's distance d from the quantiser's zero, in the smaller of its two forms.

    Dense, E(|d| + 1) for each code and a sign bit where d is not 0; or sparse, E(gap), a sign bit and E(|d|) for each
    code whose d is not 0. E is the omega code, with lengths 1, 3, 3, 6, 6, 6, 6, 7 for 1 to 8, or gamma, 2 floor(log2
    v) + 1. No table is sent: a QSGD plane with s = sqrt(n) costs 2.75 bits a value, 28 % more than its
    entropy. Costs a histogram, and a second pass over codes that are not zero.

    Raises:
        CodecError: When there is no such code.
    """

    code: Literal["gamma", "omega"] = "omega"

    name: ClassVar[str] = "elias"
    example: ClassVar[str] = "elias"
    source: ClassVar[str] = "Elias 1975; Alistarh et al. 2017, arXiv 1610.02132, section 3.2 and appendix A"

    def __post_init__(self) -> None:
        if self.code not in ("gamma", "omega"):
            raise CodecError(f"elias takes the code gamma or omega, got {self.code!r}")

    @property
    def _kind(self) -> int:
        return GAMMA if self.code == "gamma" else OMEGA

    @property
    def firsts(self) -> tuple[int, ...]:
        """Dense and sparse."""
        return elias.MODES[self._kind]

    def forms(self, values: Values) -> Iterator[Form]:
        """Dense and sparse."""
        return elias.forms(values, self._kind)

    def reading(self, mode: int, layout: Layout, source: Source) -> Reading:
        """A count for the sparse form, and the length."""
        sparse = mode == self.firsts[1]
        return elias.read(self._kind, sparse, layout.count, layout.zero or 0, (1 << layout.bits) - 1, source)


@dataclass(frozen=True)
class Golomb(Universal):
    """Golomb-Rice coding of a code's rank by its distance from a centre: 0, 1 above, 1 below, 2 above ...

    The centre is the quantiser's zero, the most frequent code or the median, whichever gives the fewest bytes.
    A rank x is x >> b in unary and its b lower bits, at most 0.12 bits above the entropy where ranks are geometric with
    a mean of 1/2 or more. The unary part ends at a limit, beyond which the rank's plain bits follow, so that a rank
    far out costs what packing costs plus the limit. Both are found by the exact size over all there are. A rank takes a
    bit or more unless all are equal, so this is not for sparse codes. Costs a histogram, and 6 bytes or so of
    parameters.
    """

    name: ClassVar[str] = "golomb"
    example: ClassVar[str] = "golomb"
    source: ClassVar[str] = "Golomb 1966; Rice and Plaunt 1971, IEEE Trans. Commun. 19(6)"

    @property
    def firsts(self) -> tuple[int, ...]:
        """One."""
        return (modes.GOLOMB,)

    def forms(self, values: Values) -> Iterator[Form]:
        """One for each centre."""
        return golomb.forms(values)

    def reading(self, mode: int, layout: Layout, source: Source) -> Reading:  # noqa: ARG002 - there is one
        """The centre, the parameters, and the length."""
        return golomb.read(layout.count, (1 << layout.bits) - 1, source)


@dataclass(frozen=True)
class Runs(Universal):
    """Run lengths of the most frequent code, in gamma or Golomb-Rice, and the codes between the runs in Golomb-Rice.

    Parameters are found by the exact size. With a fraction p of codes that differ, placed at random, p below 2/3, runs
    cost at most 0.12 bits a code that differs more than their entropy; codes that differ cost their plain bits or less.
    Costs a histogram, and a pass over what differs; about 10 bytes of parameters.
    """

    name: ClassVar[str] = "runs"
    example: ClassVar[str] = "runs"
    source: ClassVar[str] = "Golomb 1966, IEEE Trans. Inf. Theory 12(3)"

    @property
    def firsts(self) -> tuple[int, ...]:
        """One."""
        return (modes.RUNS,)

    def forms(self, values: Values) -> Iterator[Form]:
        """The one."""
        return runs.forms(values)

    def reading(self, mode: int, layout: Layout, source: Source) -> Reading:  # noqa: ARG002 - there is one
        """The base, how many differ, the parameters, and the length."""
        return runs.read(layout.count, (1 << layout.bits) - 1, source)
