"""The sparsifier that keeps what reaches a threshold."""

import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from tightwire.codecs import sparse
from tightwire.codecs.kernels import Bits
from tightwire.codecs.selection import exactly, kth
from tightwire.codecs.selection_kernels import counted, rank
from tightwire.codecs.stage import Context, Layout, Plane, Undo
from tightwire.errors import CodecError
from tightwire.wire.streams import Sink, Source

_LARGEST = float(np.finfo(np.float32).max)


@dataclass(frozen=True)
class Threshold(sparse.Sparsifier):
    """Keeps the values with |x| >= `value`, or those that reach the `quantile` of the magnitudes; all that are equal.

    Of n values at least k = max(1, round((1 - quantile) * n)) reach the quantile, which is found exactly. How many
    are kept depends on the values and is on the wire. Zeros are never sent, since they decode as zeros anyway, and the
    largest value always is: ``threshold(0)`` drops the zeros and nothing else. Codes are measured by how many steps
    they are from the code for zero, so ``uniform(4) | threshold(1) | rans`` keeps all that is not that code.

    Biased, so it wants error feedback. Squared error at most (1 - k/n) of the squared norm by a quantile; by a value
    less than value**2 a value dropped, which is no more than (1 - 1/n) of the squared norm.

    Raises:
        CodecError: When not exactly one of the two is given, or it is out of range.
    """

    value: float | None = None
    """0 or more, absolute."""
    quantile: float | None = None
    """In [0, 1); 0.99 keeps about 1 %."""

    name: ClassVar[str] = "threshold"
    example: ClassVar[str] = "threshold(quantile=0.99)"
    passes: ClassVar[float] = 3.0
    hands_on_non_finite: ClassVar[bool] = True
    source: ClassVar[str] = "Aji and Heafield 2017, arXiv 1704.05021, section 3 (quantile); Strom 2015 (value)"

    def __post_init__(self) -> None:
        if (self.value is None) == (self.quantile is None):
            raise CodecError("threshold takes a value or a quantile, one of them")
        if self.value is not None and not 0 <= self.value <= _LARGEST:
            raise CodecError(f"threshold takes a value from 0 to {_LARGEST:.6g}, got {self.value}")
        if self.quantile is not None and not 0 <= self.quantile < 1:
            raise CodecError(f"threshold takes a quantile in [0, 1), got {self.quantile}")

    @property
    def unbiased(self) -> bool:
        """Only where nothing but zeros is dropped."""
        return self.value == 0 or self.quantile == 0

    def bound(self, layout: Layout) -> float:
        """The kept hold at least their share of the squared norm."""
        if self.unbiased:
            return 0.0
        return (
            1 - (self.kept(layout.count) if self.value is None else 1) / layout.count
            if layout.kind == "reals"
            else math.inf
        )

    @property
    def keeps(self) -> float:
        """About the share above the quantile; unknown for a value, and then taken as all."""
        return 1.0 if self.quantile is None else 1 - self.quantile

    def kept(self, n: int) -> int:
        """How many of `n` values reach the quantile if no two are equal; for a value, as many as there can be."""
        return sparse.share(n, self.keeps)

    def encode(self, plane: Plane, sink: Sink, context: Context) -> Plane:  # noqa: ARG002 - the interface's arguments
        """How many are kept, their indices, and their values to the next stage."""
        raw = sparse.magnitudes(plane)
        least = max(1, self._least(plane.layout, raw))
        count, _ = counted(raw, np.int32(least))
        chosen, kept = exactly(raw, least - 1, 0, count) if count else exactly(raw, *rank(raw, 1), 1)
        sparse.write_counted(chosen, plane.layout.count, sink)
        return sparse.taken(plane.layout, kept)

    def _least(self, layout: Layout, raw: Bits) -> int:
        """The smallest magnitude that is kept."""
        if self.value is None:
            return kth(raw, self.kept(layout.count))[0]
        if layout.kind == "ints":
            return min(math.ceil(self.value), 2**31 - 1)
        least = np.float32(self.value)
        if float(least) < self.value:
            least = np.nextafter(least, np.float32(np.inf))
        return int(least.view(np.int32))

    def read(self, layout: Layout, source: Source) -> tuple[Layout, Undo]:
        """How many there are, and their indices."""
        chosen = sparse.read_counted(layout.count, source)
        return sparse.left(layout, chosen.size), sparse.put_back(layout, chosen)
