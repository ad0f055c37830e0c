"""The word that makes one vector of all tensors of a chain."""

from dataclasses import dataclass, replace
from typing import ClassVar

from tightwire.codecs.stage import Axes, Context, Kind, Layout, Plane, Stage, Tally, Target, Undo
from tightwire.wire.streams import Sink, Source


@dataclass(frozen=True)
class Flatten(Stage):
    """Codes all tensors of its chain as one vector, in the order of the schema; exact, and takes no bytes.

    The stages behind it then work across the whole update: `topk` keeps the largest values wherever they are, a
    quantiser has one scale, an entropy coder one table. Small tensors are part of the vector.
    """

    name: ClassVar[str] = "flatten"
    example: ClassVar[str] = "flatten"
    takes: ClassVar[tuple[Kind, ...]] = ("reals",)
    gives: ClassVar[Kind | None] = None
    family: ClassVar[str] = "transform"
    passes: ClassVar[float] = 0.0
    hands_on_non_finite: ClassVar[bool] = True
    source: ClassVar[str] = "Aji and Heafield 2017, arXiv 1704.05021, section 3 (one threshold for all)"

    @property
    def unbiased(self) -> bool:
        """Always: it is exact."""
        return True

    @property
    def axes(self) -> Axes:
        """What comes out is a row."""
        return "lost"

    def bound(self, layout: Layout) -> float:  # noqa: ARG002 - the interface's arguments
        """None is lost."""
        return 0.0

    def encode(self, plane: Plane, sink: Sink, context: Context) -> Plane:  # noqa: ARG002 - the interface's arguments
        """The same values; `tightwire.codecs.codec` has put them one after another."""
        return Plane.reals(plane.data)

    def read(self, layout: Layout, source: Source) -> tuple[Layout, Undo]:  # noqa: ARG002 - as above
        """Nothing is on the wire."""

        def undo(plane: Plane, target: Target | None) -> Plane:  # noqa: ARG001 - as above
            return plane

        return replace(layout, shape=()), undo

    def tally(self, before: Tally) -> Tally:
        """Nothing changes but the shape."""
        return replace(before, shape=())
