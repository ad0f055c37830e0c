"""The entropy coding stage."""

from dataclasses import dataclass
from typing import ClassVar, Literal

from tightwire.codecs.stage import Context, Kind, Layout, Plane, Stage, Tally, Target, Undo
from tightwire.errors import CodecError, FrameError
from tightwire.wire import rans
from tightwire.wire.packing import pack
from tightwire.wire.rans_kernels import unpack
from tightwire.wire.streams import Sink, Source

_MODELS = ("static", "adaptive")


@dataclass(frozen=True)
class Rans(Stage):
    """Interleaved rANS over the codes: -log2 p bits for a code that the model gives probability p.

    Lossless. The static model is the histogram of the codes, which is paid for in the section ``tables``; the adaptive
    one starts from nothing, costs no table, and learns from the codes before. Where codes come in several stretches
    (`Layout.parts`), each has a model of its own; under the static one, a table may serve again. From 100,000 codes
    on, static sizes are within 1 % of the empirical entropy, all counted, but where one symbol leaves so little to the
    others that describing their shares takes more: above 99 % of 16 symbols, 98 % of 64. The adaptive model takes more
    bytes there, since it pays for symbols that do not come. Codes stay packed, for one byte a tensor, where that is
    smaller or they have more than 12 bits.

    Raises:
        CodecError: When there is no such model.
    """

    model: Literal["static", "adaptive"] = "static"
    """A histogram, or one that learns: smaller for few codes, or where they change along the way; slower."""

    name: ClassVar[str] = "rans"
    example: ClassVar[str] = "rans"
    takes: ClassVar[tuple[Kind, ...]] = ("ints",)
    gives: ClassVar[Kind | None] = "bytes"
    family: ClassVar[str] = "entropy"
    passes: ClassVar[float] = 3.0
    source: ClassVar[str] = "Duda 2013, arXiv 1311.2540, section 3; lanes: Giesen 2014, arXiv 1402.3392"

    def __post_init__(self) -> None:
        if self.model not in _MODELS:
            raise CodecError(f"rans takes the model static or adaptive, got {self.model!r}")

    @property
    def unbiased(self) -> bool:
        """Always: it is lossless."""
        return True

    def bound(self, layout: Layout) -> float:  # noqa: ARG002 - the same for all
        """It loses nothing."""
        return 0.0

    def encode(self, plane: Plane, sink: Sink, context: Context) -> Plane:  # noqa: ARG002 - the interface's arguments
        """What the model needs, and the coded bytes."""
        layout = plane.layout
        if layout.bits > rans.MAX_BITS:
            sink.write("tables", b"\0")
            coded = None
        else:
            codes = unpack(plane.data, layout.count, layout.bits)
            coded = rans.write(codes, layout.bits, layout.length, sink, layout.parts, self.model)
        data = plane.data if coded is None else coded
        return Plane(Layout("bytes", data.size, 8), data)

    def read(self, layout: Layout, source: Source) -> tuple[Layout, Undo]:
        """What the model needs, and how many bytes were coded: fewer than packed."""
        coded = rans.read(layout.count, min(layout.bits, rans.MAX_BITS), source, layout.parts)
        if coded is None:
            return Layout("bytes", layout.length, 8), lambda plane, _: Plane(layout, plane.data)
        if layout.bits > rans.MAX_BITS:
            raise FrameError("tables", f"codes of {layout.bits} bits are coded; beyond {rans.MAX_BITS} none are")
        if coded.length >= layout.length:
            raise FrameError("length", f"{coded.length} coded bytes stand for codes that pack to {layout.length}")

        def undo(plane: Plane, target: Target | None) -> Plane:  # noqa: ARG001 - the interface's arguments
            return Plane(layout, pack(rans.decode(plane.data, coded, layout.bits), layout.bits))

        return Layout("bytes", coded.length, 8), undo

    def tally(self, before: Tally) -> Tally:
        """Papers count the codes it takes."""
        return before
