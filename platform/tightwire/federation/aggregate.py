"""Order-free aggregation: weighted sums of updates in int64 fixed point.

Integer addition is associative and commutative, so the sum has the same bits however the clients are spread over hosts
and in whatever order they finish. With at most `weight` samples in a round and values of at most `BOUND`, the number of
fraction bits is chosen such that no sum can overflow.
"""

import math
from dataclasses import dataclass

import numba
import numpy as np

from tightwire.arrays import Flat, Sums
from tightwire.errors import RefusedUpdateError

BOUND = 1024.0
"""Largest magnitude of a single value of an update that the server takes in."""


def check(update: Flat) -> None:
    """Refuse an update that must not reach a sum.

    Raises:
        RefusedUpdateError: The update holds NaN or an infinity ("non-finite"), or a magnitude over `BOUND`
            ("overflow").
    """
    peak = float(np.max(np.abs(update), initial=0.0))
    if not math.isfinite(peak):
        raise RefusedUpdateError("non-finite", "the update holds NaN or infinite values")
    if peak > BOUND:
        raise RefusedUpdateError("overflow", f"the update holds the magnitude {peak:g}; at most {BOUND:g} is added")


@dataclass(frozen=True, slots=True)
class FixedPoint:
    """A fixed-point format: a real r is held as the integer rint(r * 2**fraction_bits)."""

    fraction_bits: int

    @classmethod
    def for_weight(cls, weight: int) -> "FixedPoint":
        """The finest format in which updates of total weight `weight` cannot overflow int64.

        At most 40 fraction bits are used: 2**-40 is below half a unit in the last place of any float32 over 2**-16.
        """
        headroom = 62 - math.ceil(math.log2(BOUND)) - math.ceil(math.log2(max(weight, 1)))
        return cls(min(40, headroom))

    def zeros(self, size: int) -> Sums:
        """An empty sum of `size` values."""
        return np.zeros(size, dtype=np.int64)

    def add(self, total: Sums, update: Flat, weight: int) -> None:
        """Add `weight` times `update` to `total`, in place.

        Args:
            total: Shape (parameters,).
            update: Shape (parameters,), which `check` has let pass.
            weight: Samples behind the update, an integer so that the product is exact.
        """
        _add(total, update, np.int64(weight), float(2.0**self.fraction_bits))

    def mean(self, total: Sums, weight: int) -> Flat:
        """The weighted mean that `total` stands for, float32, shape (parameters,)."""
        return (total / (float(weight) * 2.0**self.fraction_bits)).astype(np.float32)


@numba.njit(cache=True, nogil=True)
def _add(total: Sums, update: Flat, weight: np.int64, scale: float) -> None:
    for i in range(update.size):
        total[i] += weight * np.int64(np.rint(np.float64(update[i]) * scale))
