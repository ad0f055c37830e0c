"""QSGD, stochastic quantisation relative to a norm."""

import math
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np

from tightwire.arrays import Flat
from tightwire.codecs.affine import LARGEST, Affine, AffineStage, not_negative
from tightwire.codecs.groups import Per, check_groups, group_length
from tightwire.codecs.stage import Context, Layout
from tightwire.codecs.sums import Groups
from tightwire.errors import CodecError


@dataclass(frozen=True)
class QSGD(AffineStage):
    """Stochastic rounding of |x| / norm to s levels above 0, times the sign.

    With r = s x / norm the level is floor(r + u), u uniform in [0, 1), and the value norm * level / s; the code is
    s + level, so that s is zero. The norm, float32 on the wire, is rounded up, and above the largest float32 cut to it,
    so that no |x| is beyond it. Unbiased; the squared error is at most min(n / (4 s**2), sqrt(n) / s) of the squared
    norm for n values that share a 2-norm, and less with the largest magnitude for a norm. With bits,
    s = 2**(bits - 1) - 1, as 2 s + 1 codes must fit. The default is what the paper's theorem is about, the 2-norm of a
    whole tensor; its experiments take ``bucket=512, norm=max``. One float32 a group.

    Raises:
        CodecError: When arguments are out of range or do not go together.
    """

    bits: int | None = None
    """2 to 16; either this or `levels`."""
    levels: int | None = None
    """s, 1 to 32767."""
    norm: Literal["l2", "max"] = "l2"
    per: Per = "tensor"
    bucket: int = 0
    """Values that share a norm, 0 for all."""

    name: ClassVar[str] = "qsgd"
    example: ClassVar[str] = "qsgd(4, norm=max, bucket=512)"
    passes: ClassVar[float] = 3.0
    source: ClassVar[str] = "Alistarh et al. 2017, arXiv 1610.02132, section 3.1; buckets and max-norm: section 4"

    def __post_init__(self) -> None:
        if (self.bits is None) == (self.levels is None):
            raise CodecError(f"qsgd takes either bits or levels, got bits={self.bits} and levels={self.levels}")
        if self.bits is not None and not 2 <= self.bits <= 16:
            raise CodecError(f"qsgd takes 2 to 16 bits, got {self.bits}")
        if self.levels is not None and not 1 <= self.levels <= 32767:
            raise CodecError(f"qsgd takes 1 to 32767 levels, got {self.levels}")
        check_groups("qsgd", self.per, self.bucket)

    @property
    def s(self) -> int:
        """Levels above 0."""
        return self.levels or 0 if self.bits is None else 2 ** (self.bits - 1) - 1

    @property
    def width(self) -> int:
        """Bits of the largest code, 2 s."""
        return (2 * self.s).bit_length()

    @property
    def unbiased(self) -> bool:
        """Always."""
        return True

    @property
    def has_zero(self) -> bool:
        """The code s."""
        return True

    def bound(self, layout: Layout) -> float:
        """Lemma 3.1 (iii) for the 2-norm, sharpened: rounding has variance 1/4 at most; or max |x| ||x||_1 / s."""
        n, s = group_length(layout, self.per, self.bucket), self.s
        return min(n / (4 * s**2), math.sqrt(n) / s if self.norm == "l2" else (1 + math.sqrt(n)) / (2 * s))

    def looks(self, layout: Layout) -> int | None:
        """The groups, for their largest magnitudes."""
        return super().looks(layout) if self.norm == "max" else None

    def scales(self, groups: Groups, context: Context) -> Flat:  # noqa: ARG002 - the interface's arguments
        """Norms, rounded up to float32."""
        if self.norm == "max":
            return groups.peaks()[:, None]
        exact = np.minimum(groups.norms(), LARGEST)
        norms = exact.astype(np.float32)
        return np.where(norms < exact, np.nextafter(norms, np.float32(LARGEST)), norms)[:, None]

    def affine(self, scales: Flat, length: int) -> Affine:
        """The levels."""
        return Affine.centred(not_negative(scales), self.s, length)
