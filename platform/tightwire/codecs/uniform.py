"""The uniform quantiser."""

from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np

from tightwire.arrays import Bytes8, Flat
from tightwire.codecs.affine import Affine, AffineStage, in_order, not_negative, quantise
from tightwire.codecs.groups import Per, check_groups, group_length
from tightwire.codecs.stage import Context, Layout
from tightwire.codecs.sums import Groups
from tightwire.errors import CodecError

__all__ = ["Affine", "Uniform", "quantise"]

_KEEP = 0.9
"""What a running range keeps of itself each round."""


@dataclass(frozen=True)
class Uniform(AffineStage):
    """Quantisation to evenly spaced levels, by default 2**bits of them between the smallest and the largest value.

    The affine form has L + 1 levels from a = min to b = max, spaced s = (b - a) / L: the code of x is
    floor((x - a) / s + u) and its value a + code * s, where u is uniform in [0, 1) for stochastic rounding and 1/2 for
    the nearest. The frame carries a and b as float32. The symmetric form has 2 L + 1 levels from -max |x| to max |x|,
    zero in the middle, and carries max |x|; bits then give 2**bits - 1 levels. Rounding by ``floor`` is the fixed-point
    form: with N cells from a to b, as many as levels, the code of x is floor((x - a) / (b - a) * N), at most N - 1, and
    its value the middle of the cell, a + (code + 1/2) (b - a) / N; only constants are exact.

    A static range is calibrated over the sender's rounds: its first update uses its own range, and the next ones the
    running range r <- 0.9 r + 0.1 (range of the update), as it was before the update; what lies outside is cut to its
    ends. A group of equal values uses its own range, so that zeros stay zeros. The range used is on the wire.

    A fitted range changes what codes stand for once they are known, by least squares, as the decoder does not care
    where its range comes from. Values x have the codes k of the nearest levels of their own range, and then value is
    regressed on code: the affine form's levels become a' + code * s' with s' = cov(x, k) / var(k) and
    a' = mean(x) - s' mean(k), the symmetric form's (code - L) s' with s' = sum x (k - L) / sum (k - L)**2, and
    a' and a' + L s', or L s', are on the wire. Codes are those of rounding to the nearest in a dynamic range, and the
    squared error is the least that even levels reach with them, but for the rounding of what is on the wire. It asks
    for rounding=nearest and costs one pass more.

    Stochastic rounding of a dynamic range is unbiased, with squared error at most n s**2 / 4; other roundings err by at
    most s / 2 a value and want error feedback, as static and fitted ranges do.

    Raises:
        CodecError: When arguments are out of range or do not go together.
    """

    bits: int | None = None
    """1 to 16; either this or `levels`."""
    rounding: Literal["stochastic", "nearest", "floor"] = "stochastic"
    levels: int | None = None
    """2 to 65536; odd for the symmetric form."""
    form: Literal["affine", "symmetric"] = "affine"
    range: Literal["dynamic", "static", "fitted"] = "dynamic"
    per: Per = "tensor"
    bucket: int = 0
    """Values that share a range, 0 for all."""

    name: ClassVar[str] = "uniform"
    example: ClassVar[str] = "uniform(4)"
    source: ClassVar[str] = "Konecny et al. 2016, arXiv 1610.05492, section 3"

    def __post_init__(self) -> None:
        if (self.bits is None) == (self.levels is None):
            raise CodecError(f"uniform takes either bits or levels, got bits={self.bits} and levels={self.levels}")
        if self.bits is not None and not 1 <= self.bits <= 16:
            raise CodecError(f"uniform takes 1 to 16 bits, got {self.bits}")
        if self.levels is not None and not 2 <= self.levels <= 65536:
            raise CodecError(f"uniform takes 2 to 65536 levels, got {self.levels}")
        if self.form == "symmetric":
            if self.bits == 1:
                raise CodecError("symmetric uniform takes 2 bits or more, got 1, which has no room for a zero")
            if self.levels is not None and self.levels % 2 == 0:
                raise CodecError(f"symmetric uniform takes an odd number of levels, got {self.levels}")
            if self.rounding == "floor":
                raise CodecError("symmetric uniform rounds stochastic or nearest, not floor, which has no level for 0")
        if self.range == "fitted" and self.rounding != "nearest":
            raise CodecError(
                f"uniform fits a range to the nearest levels: it takes rounding=nearest, got {self.rounding}"
            )
        check_groups("uniform", self.per, self.bucket)

    @property
    def numbers(self) -> int:  # type: ignore[override]  # depends on the form
        """A range or a largest magnitude."""
        return 1 if self.form == "symmetric" else 2

    @property
    def passes(self) -> float:  # type: ignore[override]  # depends on the range
        """For the range and for the codes, and one to fit."""
        return 3.0 if self.range == "fitted" else 2.0

    @property
    def count(self) -> int:
        """Levels."""
        if self.bits is None:
            return self.levels or 0
        return int(2**self.bits) - (self.form == "symmetric")

    @property
    def width(self) -> int:
        """Bits of the largest code."""
        return (self.count - 1).bit_length()

    @property
    def unbiased(self) -> bool:
        """With stochastic rounding in a range that holds all values."""
        return self.rounding == "stochastic" and self.range == "dynamic"

    @property
    def has_zero(self) -> bool:
        """In the symmetric form, and where one range serves all values."""
        return self.form == "symmetric" or (self.per == "tensor" and not self.bucket)

    def bound(self, layout: Layout) -> float:
        """N s**2 / 4 with s from (b - a)**2 <= 2 ||x||**2, or max |x| <= ||x||; none for a static range.

        A fitted range is no worse than sending zeros, where the nearest levels may be.
        """
        if self.range == "static":
            return super().bound(layout)
        n = group_length(layout, self.per, self.bucket)
        if self.form == "affine":
            steps = self.count if self.rounding == "floor" else self.count - 1
            worst = n / (2 * steps**2)
            return min(worst, 1.0) if self.range == "fitted" else worst
        worst = n / (self.count - 1) ** 2
        return min(worst, 1 - 1 / n) if self.rounding == "nearest" else worst

    def scales(self, groups: Groups, context: Context) -> Flat:
        """Ranges, or largest magnitudes."""
        own = groups.extremes()
        constant = own[:, 0] == own[:, 1]
        if self.form == "symmetric":
            own = groups.peaks()[:, None]
        if self.range != "static":
            return own
        running = context.memory
        if running is None or running.size != own.size:
            context.left = own.ravel()
            return own
        used = running.reshape(own.shape)
        context.left = (_KEEP * used.astype(np.float64) + (1 - _KEEP) * own).astype(np.float32).ravel()
        return np.where(constant[:, None], own, used).astype(np.float32)

    def affine(self, scales: Flat, length: int) -> Affine:
        """The levels."""
        if self.form == "symmetric":
            return Affine.centred(not_negative(scales), self.count // 2, length)
        if self.rounding == "floor":
            return Affine.cells(*in_order(scales), self.count, length)
        return Affine.spanning(*in_order(scales), self.count - 1, length)

    def fitted(self, scales: Flat, affine: Affine, groups: Groups) -> Flat:
        """The ranges, or largest magnitudes, whose levels are nearest to the values in the mean square.

        A group keeps its own where all its values are equal, or where no range of float32 is the one looked for.
        """
        if self.range != "fitted":
            return scales
        least, most = -affine.zero, affine.top - affine.zero
        x, k, products, squares = groups.moments(affine.low, affine.inverse, least, most).T
        n = groups.sizes
        with np.errstate(all="ignore"):  # of groups that keep their own
            if self.form == "symmetric":
                ends = (products / squares * most)[:, None]
            else:
                step = (products - x * k / n) / (squares - k * k / n)
                start = scales[:, 0] + (x - step * k) / n
                ends = np.stack([start, start + step * most], axis=1)
            found = ends.astype(np.float32)
        good = np.isfinite(found).all(axis=1) & (found[:, 0] <= found[:, -1])
        return np.where(good[:, None], found, scales)

    def codes(self, values: Flat, affine: Affine, context: Context) -> Bytes8:
        """Rounded as asked for."""
        if self.rounding == "stochastic":
            return quantise(values, affine, key=context.key)
        return quantise(values, affine, shift=0.5 if self.rounding == "nearest" else 0.0)
