"""Quantisers that keep one bit of each value: its sign."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from tightwire.arrays import Bytes8, Flat
from tightwire.codecs.affine import Affine, AffineStage, in_order, not_negative
from tightwire.codecs.affine_kernels import quantise_sign
from tightwire.codecs.groups import Per, check_groups, group_length
from tightwire.codecs.stage import Context, Layout
from tightwire.codecs.sums import Groups
from tightwire.errors import FrameError
from tightwire.wire import packing


class _SignStage(AffineStage):
    """One bit a value, 1 for what is 0 or more; deterministic, a contraction, and in want of error feedback."""

    def __post_init__(self) -> None:
        check_groups(self.name, self.per, self.bucket)

    @property
    def width(self) -> int:
        """One bit."""
        return 1

    @property
    def unbiased(self) -> bool:
        """Never."""
        return False

    def bound(self, layout: Layout) -> float:
        """1 - ||x||_1**2 / (n ||x||**2) or less, and ||x||_1 >= ||x||."""
        return 1 - 1 / group_length(layout, self.per, self.bucket)

    def looks(self, layout: Layout) -> int | None:  # noqa: ARG002 - the interface's arguments
        """Means come from sums."""
        return None

    def codes(self, values: Flat, affine: Affine, context: Context) -> Bytes8:  # noqa: ARG002 - the interface's arguments
        """The signs."""
        data = packing.empty(values.size, affine.bits)
        quantise_sign(values, *packing.split(data, values.size, affine.bits))
        return data


@dataclass(frozen=True)
class Sign(_SignStage):
    """Scaled sign: mean |x| times the sign of x, where 0 counts as positive; zeros stay zeros.

    The squared error is 1 - ||x||_1**2 / (n ||x||**2) of the squared norm, 1 - 2/pi for Gaussian values. Biased: wants
    error feedback, with which it converges as SGD does. One bit a value and one float32 a group.
    """

    per: Per = "tensor"
    bucket: int = 0
    """Values that share a mean, 0 for all."""

    name: ClassVar[str] = "sign"
    example: ClassVar[str] = "sign"
    passes: ClassVar[float] = 3.0
    source: ClassVar[str] = "Karimireddy et al. 2019, arXiv 1901.09847, section 4 and lemma 8"

    def scales(self, groups: Groups, context: Context) -> Flat:  # noqa: ARG002 - the interface's arguments
        """Mean magnitudes."""
        below, above, _ = groups.halves().T
        means: Flat = ((above - below) / groups.sizes).astype(np.float32)
        return means[:, None]

    def affine(self, scales: Flat, length: int) -> Affine:
        """The mean, negative and positive."""
        means = not_negative(scales)
        return Affine.spanning(-means, means, 1, length)


@dataclass(frozen=True)
class OneBit(_SignStage):
    """1-bit SGD: the mean of the negative values for those, and the mean of the others for the others.

    These are the two values with the least squared error for a threshold at 0: at most 1 - 1/n of the squared norm, and
    1 - 2/pi of it for Gaussian values. Biased, and meant for error feedback, which the paper introduces. One bit a
    value and two float32 a group; where a side has no values its mean is 0.
    """

    per: Per = "tensor"
    bucket: int = 0
    """Values that share two means, 0 for all. The paper has a pair for each column of a weight matrix."""

    name: ClassVar[str] = "onebit"
    example: ClassVar[str] = "onebit"
    passes: ClassVar[float] = 3.0
    numbers: ClassVar[int] = 2
    source: ClassVar[str] = "Seide et al. 2014, 1-bit stochastic gradient descent, Interspeech, section 3"

    def scales(self, groups: Groups, context: Context) -> Flat:  # noqa: ARG002 - the interface's arguments
        """Both means."""
        below, above, negative = groups.halves().T
        others = groups.sizes - negative
        means = np.stack([below / np.maximum(negative, 1), above / np.maximum(others, 1)], axis=1)
        return means.astype(np.float32)

    def affine(self, scales: Flat, length: int) -> Affine:
        """Both means."""
        low, high = in_order(scales)
        if (low > 0).any() or (high < 0).any():
            raise FrameError("scales", "a mean of negative values is above 0, or one of the others below")
        return Affine.spanning(low, high, 1, length)
