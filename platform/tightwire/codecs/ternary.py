"""TernGrad, stochastic quantisation to three levels."""

import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from tightwire.arrays import Flat
from tightwire.codecs.affine import Affine, AffineStage, not_negative
from tightwire.codecs.groups import Per, check_groups, group_length
from tightwire.codecs.stage import Context, Layout
from tightwire.codecs.sums import Groups
from tightwire.errors import CodecError

_SMALLEST = float(np.finfo(np.float32).smallest_subnormal)


@dataclass(frozen=True)
class TernGrad(AffineStage):
    """Values are cut to clip * sigma in magnitude, and sent as -s, 0 or s, with s the largest magnitude left.

    A value x that is left is sent as sign(x) s with probability |x| / s, else as 0. sigma is the standard deviation of
    the values that share s, sqrt(mean((x - mean x)**2)); equal values are not cut, nor are any with clip=0. Unbiased
    for the cut values, so for all with clip=0; then the squared error is at most (sqrt(n) - 1) / 2 of the squared norm.
    With a clip c up to 4 it is at most 1 + c**2 / 8, whatever n. 2 bits a value and one float32 a group.

    Raises:
        CodecError: When arguments are out of range or do not go together.
    """

    clip: float = 2.5
    """Standard deviations; 0 for none."""
    per: Per = "tensor"
    bucket: int = 0
    """Values that share s, 0 for all."""

    name: ClassVar[str] = "terngrad"
    example: ClassVar[str] = "terngrad"
    passes: ClassVar[float] = 3.0
    source: ClassVar[str] = "Wen et al. 2017, arXiv 1705.07878, equations 1 to 3 and 12"

    def __post_init__(self) -> None:
        if not 0 <= self.clip < math.inf:
            raise CodecError(f"terngrad takes a clip of 0 or more standard deviations, got {self.clip}")
        check_groups("terngrad", self.per, self.bucket)

    @property
    def width(self) -> int:
        """Of three codes."""
        return 2

    @property
    def unbiased(self) -> bool:
        """Where nothing is cut."""
        return self.clip == 0

    @property
    def has_zero(self) -> bool:
        """The code 1."""
        return True

    def bound(self, layout: Layout) -> float:
        """Without a clip from s ||x||_1 <= (1 + sqrt n) / 2 ||x||**2; with one from s <= c ||x|| / sqrt n."""
        if not self.clip:
            return (math.sqrt(group_length(layout, self.per, self.bucket)) - 1) / 2
        return 1 + self.clip**2 / 8 if self.clip <= 4 else self.clip - 1

    def scales(self, groups: Groups, context: Context) -> Flat:  # noqa: ARG002 - the interface's arguments
        """Largest magnitudes, after cutting."""
        largest = groups.peaks()
        if self.clip:
            sigma = groups.deviations()
            with np.errstate(over="ignore"):  # a clip so large cuts nothing
                ends = np.maximum(self.clip * sigma, _SMALLEST)
            largest = np.where(sigma > 0, np.minimum(largest, ends), largest).astype(np.float32)
        return largest[:, None]

    def affine(self, scales: Flat, length: int) -> Affine:
        """Three levels."""
        return Affine.centred(not_negative(scales), 1, length)
