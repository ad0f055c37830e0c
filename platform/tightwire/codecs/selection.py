"""Finding the largest magnitudes of many, exactly and fast."""

import math

import numpy as np

from tightwire.arrays import Flat, Ints
from tightwire.codecs import selection_kernels
from tightwire.codecs.kernels import FOLD, Bits

_SAMPLES = 2**12, 2**16
"""Smallest and largest sample that thresholds are guessed from; of fewer values than the first nothing is guessed."""


def select(values: Flat, k: int) -> tuple[Ints, Flat]:
    """Indices, increasing, and values of the k largest magnitudes; of equal ones the first are taken.

    Args:
        values: Shape (n,), contiguous. Infinities are larger than what is finite, and NaNs larger still.
        k: 1 to n.
    """
    chosen, bits = largest(values.view(np.int32), k)
    return chosen, bits.view(np.float32)


def largest(raw: Bits, k: int) -> tuple[Ints, Bits]:
    """As `select`, of the bits of floats, or of integers; the sign bit does not count.

    Where k is small, a sample gives a threshold that a few more than k should reach; one pass gathers those, and the
    k-th largest is found among them. Else the k-th largest is found first, and a second pass gathers.

    Args:
        raw: Shape (n,), contiguous.
        k: 1 to n.
    """
    n = raw.size
    if k == n:
        return np.arange(n), raw
    if n >= _SAMPLES[0] and k <= n // 4:
        sample, share, margin = _sample(raw, k)
        above = math.ceil(share + margin)
        threshold, _ = selection_kernels.rank(sample, min(sample.size, above))
        candidates = selection_kernels.reaching(raw, threshold, 2 * above * n // sample.size) if threshold else None
        if candidates is not None and candidates[0].size >= k:
            found, bits = candidates
            least, ties = selection_kernels.rank(bits, k)
            selection_kernels.narrow(found, bits, np.int32(least), ties)
            return found[:k], bits[:k]
    return exactly(raw, *kth(raw, k), k)


def exactly(raw: Bits, least: int, ties: int, k: int) -> tuple[Ints, Bits]:
    """Indices, increasing, and bits of the magnitudes above `least` and the first `ties` equal to it: k in all."""
    found, out = np.empty(k, np.int64), np.empty(k, np.int32)
    selection_kernels.take(raw, np.int32(least), ties, found, out)
    return found, out


def kth(raw: Bits, k: int) -> tuple[int, int]:
    """The k-th largest magnitude, and how many of those equal to it are among the k largest.

    A sample brackets it, so that one pass leaves only few to look at; where it fails, all are looked at.

    Args:
        raw: Shape (n,), contiguous.
        k: 1 to n.
    """
    if raw.size >= 4 * _SAMPLES[0]:
        sample, share, margin = _sample(raw, k)
        low, _ = selection_kernels.rank(sample, min(sample.size, math.ceil(share + margin)))
        high = max(low + 1, selection_kernels.rank(sample, max(1, math.floor(share - margin)))[0])
        room = math.ceil(4 * margin * raw.size / sample.size)
        found = selection_kernels.around(raw, low, high, room) if high <= FOLD else None
        if found is not None:
            above, tops, inside, bottoms = found
            if above < k <= above + tops:
                return high, k - above
            rest = k - above - tops
            if 0 < rest <= inside.size:
                return selection_kernels.rank(inside, rest)
            if inside.size < rest <= inside.size + bottoms:
                return low, rest - inside.size
    return selection_kernels.rank(raw, k)


def _sample(raw: Bits, k: int) -> tuple[Bits, float, float]:
    """Evenly strided values, how many of the k largest to expect among them, and how far that may be off."""
    size = min(_SAMPLES[1], max(_SAMPLES[0], raw.size // 64))
    sample = raw[:: raw.size // size]
    share = k / raw.size
    expected = share * sample.size
    return sample, expected, 4 * math.sqrt(expected * (1 - share)) + 8
