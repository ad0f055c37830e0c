"""The sparsifier of Deep Gradient Compression."""

import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from tightwire.arrays import Ints
from tightwire.codecs import sparse
from tightwire.codecs.kernels import Bits
from tightwire.codecs.selection import exactly, largest
from tightwire.codecs.selection_kernels import counted, rank
from tightwire.codecs.stage import Context, Kind, Layout, Plane, Undo
from tightwire.errors import CodecError
from tightwire.wire.streams import Sink, Source

_SAMPLED = 100
"""One value of so many is looked at to guess the threshold."""
_LOWER, _UPPER = 0.8, 1.3
"""What of the target may be kept."""
_ADAPTATIONS = 10
_INFINITE = 0x7F800000


@dataclass(frozen=True)
class DeepGradientCompression(sparse.Sparsifier):
    """Keeps about k = max(1, round(density * n)) of n values, those above a threshold that a sample of 1 % gives.

    The sample is strided, from a keyed start, and of 2 / density values at least. While fewer than 0.8 k values reach
    the threshold it is multiplied by 0.8, ten times at most; where more than 1.3 k do, exactly the k largest are kept,
    as the authors' code does. Unlike there, what lies between is sent whole, and with a density of 1 everything is. How
    many are kept is on the wire.

    In a warm-up the density falls exponentially: round r = 1, 2, ... of it has max(density, density**(r / (warmup +
    1))), which for 0.001 and 4 is the paper's 0.25, 0.063, 0.016, 0.004. A round here is what an epoch is there; round
    0 counts as the first. The momentum correction, the factor masking and the local clipping of the paper belong to
    what the sender remembers: they are the error feedback `dgc` of an experiment, see `tightwire.codecs.feedback`.

    Biased. At least the largest value is kept, so squared error is at most (1 - 1/n) of the squared norm; it is about
    that of `topk` unless many values are equal.

    Raises:
        CodecError: When the density is not in (0, 1], or the warm-up is negative.
    """

    density: float
    """Kept fraction after the warm-up, in (0, 1]."""
    warmup: int = 4
    """Rounds of warm-up; 0 for none."""

    name: ClassVar[str] = "dgc"
    example: ClassVar[str] = "dgc(0.01)"
    takes: ClassVar[tuple[Kind, ...]] = ("reals",)
    gives: ClassVar[Kind | None] = "reals"
    passes: ClassVar[float] = 2.0
    hands_on_non_finite: ClassVar[bool] = True
    source: ClassVar[str] = "Lin et al. 2018, arXiv 1712.01887, sections 3.1 and 3.3, and the authors' code"

    def __post_init__(self) -> None:
        sparse.check_density(self.name, self.density)
        if self.warmup < 0:
            raise CodecError(f"dgc takes a warm-up of 0 rounds or more, got {self.warmup}")

    @property
    def unbiased(self) -> bool:
        """Never, but where all are kept."""
        return self.density == 1

    def bound(self, layout: Layout) -> float:
        """The largest is always kept."""
        return 0.0 if self.density == 1 else 1 - 1 / layout.count

    @property
    def keeps(self) -> float:
        """The density after the warm-up."""
        return self.density

    def kept(self, n: int) -> int:
        """How many of `n` values, n > 0, are aimed at after the warm-up."""
        return sparse.share(n, self.density)

    def density_of(self, round: int) -> float:
        """The kept fraction aimed at in a round, from 1."""
        return max(self.density, math.pow(self.density, max(1, round) / (self.warmup + 1)))

    def encode(self, plane: Plane, sink: Sink, context: Context) -> Plane:
        """How many are kept, their indices, and their values to the next stage."""
        n = plane.layout.count
        chosen, kept = self._select(plane.data.view(np.int32), self.density_of(context.round), context.key)
        sparse.write_counted(chosen, n, sink)
        return sparse.taken(plane.layout, kept)

    @staticmethod
    def _select(raw: Bits, density: float, key: int) -> tuple[Ints, Bits]:
        n = raw.size
        if density == 1:
            return np.arange(n), raw
        target = sparse.share(n, density)
        stride = max(1, n // max(math.ceil(n / _SAMPLED), math.ceil(min(n, 2 / density))))
        stride -= 1 - stride % 2  # odd, so as not to fall into step with a tensor's rows
        sample = raw[key % stride :: stride]
        least, _ = rank(sample, max(1, math.ceil(density * sample.size)))
        for _ in range(_ADAPTATIONS):
            count, _ = counted(raw, np.int32(least))
            if count > _UPPER * target:
                return largest(raw, target)
            if count >= _LOWER * target or least >= _INFINITE:
                break
            least = int(np.float32(_LOWER * float(np.int32(least).view(np.float32))).view(np.int32))
        else:
            count, _ = counted(raw, np.int32(least))
        return exactly(raw, least - 1, 0, count)

    def read(self, layout: Layout, source: Source) -> tuple[Layout, Undo]:
        """How many there are, and their indices."""
        chosen = sparse.read_counted(layout.count, source)
        return sparse.left(layout, chosen.size), sparse.put_back(layout, chosen)
