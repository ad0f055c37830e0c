"""The entropy coding stage."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from tightwire.codecs.stage import Context, Kind, Layout, Plane, Stage, Tally, Target, Undo
from tightwire.errors import FrameError
from tightwire.wire import rans
from tightwire.wire.packing import pack, unpack
from tightwire.wire.streams import Sink, Source


@dataclass(frozen=True)
class Rans(Stage):
    """rANS over the codes with their own histogram as the model, which is paid for in the section ``tables``.

    Lossless. Codes stay packed, for one byte a tensor, where that is smaller or they have more than 12 bits.
    """

    name: ClassVar[str] = "rans"
    example: ClassVar[str] = "rans"
    takes: ClassVar[tuple[Kind, ...]] = ("ints",)
    gives: ClassVar[Kind | None] = "bytes"
    family: ClassVar[str] = "entropy"
    passes: ClassVar[float] = 3.0
    source: ClassVar[str] = "Duda 2013, arXiv 1311.2540"

    @property
    def unbiased(self) -> bool:
        """Always: it is lossless."""
        return True

    def encode(self, plane: Plane, sink: Sink, context: Context) -> Plane:  # noqa: ARG002 - the interface's arguments
        """A table, and the coded bytes."""
        layout = plane.layout
        if layout.bits > rans.MAX_BITS:
            sink.write("tables", b"\0")
            coded = None
        else:
            coded = rans.write(unpack(plane.data, layout.count, layout.bits), layout.bits, layout.length, sink)
        data = plane.data if coded is None else np.frombuffer(coded, np.uint8)
        return Plane(Layout("bytes", data.size, 8), data)

    def read(self, layout: Layout, source: Source) -> tuple[Layout, Undo]:
        """The table, and how many bytes were coded: fewer than packed."""
        table = rans.read_table(min(layout.bits, rans.MAX_BITS), source)
        if table is None:
            return Layout("bytes", layout.length, 8), lambda plane, _: Plane(layout, plane.data)
        if layout.bits > rans.MAX_BITS:
            raise FrameError("tables", f"codes of {layout.bits} bits come with a table; beyond {rans.MAX_BITS} none do")
        shares, group, length = table
        if length >= layout.length:
            raise FrameError("length", f"{length} coded bytes stand for codes that pack to {layout.length}")

        def undo(plane: Plane, target: Target | None) -> Plane:  # noqa: ARG001 - the interface's arguments
            codes = rans.decode(plane.data, layout.count, shares, group)
            return Plane(layout, pack(codes.view(np.uint32), layout.bits))

        return Layout("bytes", length, 8), undo

    def tally(self, before: Tally) -> Tally:
        """Papers count the codes it takes."""
        return before
