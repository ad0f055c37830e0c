"""The sparsifier that keeps the largest magnitudes."""

import math
from dataclasses import dataclass
from typing import ClassVar

from tightwire.codecs import sparse
from tightwire.codecs.selection import largest
from tightwire.codecs.stage import Context, Layout, Plane, Undo
from tightwire.wire import indices
from tightwire.wire.streams import Sink, Source


@dataclass(frozen=True)
class TopK(sparse.Sparsifier):
    """Keeps the k = max(1, round(density * n)) largest magnitudes of a tensor's n values, exactly.

    Of equal magnitudes those of lower index are kept. Biased; a contraction: squared error at most (1 - k/n) of the
    squared norm, so it wants error feedback. Of codes those farthest from the code for zero are kept, so that
    ``uniform(4) | topk(0.1) | rans`` quantises first; that has no guarantee. Across a whole update it is
    ``flatten | topk(0.01)``.

    Raises:
        CodecError: When the density is not in (0, 1].
    """

    density: float
    """Kept fraction, in (0, 1]."""

    name: ClassVar[str] = "topk"
    example: ClassVar[str] = "topk(0.1)"
    passes: ClassVar[float] = 3.0
    hands_on_non_finite: ClassVar[bool] = True
    source: ClassVar[str] = "Stich et al. 2018, arXiv 1809.07599, definition 2.1"

    def __post_init__(self) -> None:
        sparse.check_density(self.name, self.density)

    @property
    def unbiased(self) -> bool:
        """Never, but where all are kept."""
        return self.density == 1

    def bound(self, layout: Layout) -> float:
        """The kept hold at least their share of the squared norm."""
        kept = self.kept(layout.count)
        return 1 - kept / layout.count if layout.kind == "reals" or kept == layout.count else math.inf

    @property
    def keeps(self) -> float:
        """The density."""
        return self.density

    def kept(self, n: int) -> int:
        """How many of `n` values, n > 0, are kept; halves round up."""
        return sparse.share(n, self.density)

    def encode(self, plane: Plane, sink: Sink, context: Context) -> Plane:  # noqa: ARG002 - the interface's arguments
        """Indices to the frame, kept values to the next stage."""
        n, layout = plane.layout.count, plane.layout
        k = self.kept(n)
        if k == n:
            return Plane(sparse.left(layout, n), plane.data)
        chosen, kept = largest(sparse.magnitudes(plane), k)
        indices.write(chosen, n, sink)
        return sparse.taken(layout, kept)

    def read(self, layout: Layout, source: Source) -> tuple[Layout, Undo]:
        """The indices; their number follows from the density."""
        chosen = indices.read(self.kept(layout.count), layout.count, source)
        return sparse.left(layout, chosen.size), sparse.put_back(layout, chosen)
