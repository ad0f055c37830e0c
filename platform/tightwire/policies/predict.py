"""What a frame will weigh and how far off it will be, predicted from an update's statistics alone.

For the chains ``topk(density) | uniform(bits) | rans``, on a grid of bits and densities at once. A prediction is not a
bill: cost is the length of the frame. Envelope, scales and packed codes are known exactly; indices are expected for
positions independent of one another; entropy-coded codes take their expected empirical entropy, plus a table whose
size is a formula fitted to that coder.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from tightwire.arrays import Floats, Ints
from tightwire.codecs.codec import Codec, small
from tightwire.codecs.topk import TopK
from tightwire.policies.lines import Entropy, quantised
from tightwire.policies.stats import UpdateStats
from tightwire.policies.sweep import Sweep, sweep
from tightwire.wire.frame import envelope_length
from tightwire.wire.indices import golomb_parameter
from tightwire.wire.packing import packed_length
from tightwire.wire.rans import MAX_BITS

_SCALES = 8
"""Bytes of a quantiser's range."""
_FLUSH = 3.0
"""Bytes that an entropy coder takes besides table, entropy and length: a head, the ends of its table and state."""


@dataclass(frozen=True, slots=True, eq=False)
class Grid:
    """Predictions of shape (bits, densities)."""

    bytes: Floats
    """Expected length of the frame."""
    error: Floats
    """Expected squared error of what is decoded."""


def predict(stats: UpdateStats, bits: Sequence[int], densities: Sequence[float], entropy: Entropy) -> Grid:
    """Predict the whole grid.

    Args:
        stats: Of the vector that would be encoded.
        bits: Bit widths, 1 to 16.
        densities: Kept fractions in (0, 1], rising.
        entropy: The entropy coder.
    """
    compressed, kept, given = _given(tuple(stats.sizes.tolist()), tuple(bits), tuple(densities), entropy)
    widths = np.array(bits, np.int64)
    expected = sweep(stats, widths, kept)
    mask = compressed[:, None, None]
    codes = np.ceil(kept[:, None, :] * widths[:, None] / 8)
    if entropy == "rans":
        coded = _coded(expected, kept, widths)
        codes = np.where(widths[:, None] > MAX_BITS, codes + 1, np.minimum(coded, codes + 1))
    return Grid(given + (codes * mask).sum(axis=0), (expected.error * mask).sum(axis=0))


@lru_cache(maxsize=64)
def _given(
    sizes: tuple[int, ...], bits: tuple[int, ...], densities: tuple[float, ...], entropy: Entropy
) -> tuple[Ints, Ints, Floats]:
    """What all updates of these tensor sizes share.

    Returns:
        1 for each tensor that is compressed, 0 where it is small and sent plain, shape (tensors,); values kept, shape
        (tensors, densities); and all bytes but the codes and their tables, shape (bits, densities).
    """
    compressed = np.array([size >= small(sum(sizes)) for size in sizes], np.int64)
    plain = 4 * sum(size for size, coded in zip(sizes, compressed, strict=True) if not coded)
    kept = np.array([[TopK(density).kept(size) for density in densities] for size in sizes], np.int64)
    kept = kept.reshape(len(sizes), len(densities))
    indices = np.array(
        [
            sum(_index(int(k), size) for k, size, coded in zip(column, sizes, compressed, strict=True) if coded)
            for column in kept.T
        ]
    )
    envelopes = np.array(
        [
            [envelope_length(Codec.parse(quantised(width, density, entropy)).compact) for density in densities]
            for width in bits
        ]
    )
    return compressed, kept, envelopes + indices + plain + _SCALES * compressed.sum()


def _coded(expected: Sweep, kept: Ints, widths: Ints) -> Floats:
    """Bytes of codes and table under `tightwire.wire.rans`, shape (tensors, bits, densities).

    The table takes, in bits, for m occurring levels out of 2**bits and k values, 1.2 m + 0.15 m r + sqrt(m) (2 r +
    8.1 e) - 15 with r = log2(k / m) and e = log2(2**bits / m): least squares over Gaussian, Laplace, Student and
    half-zero Gaussian samples of 50 to 100,000 values, together with `_FLUSH`. No count of bits would do: the coder
    groups levels and coarsens counts where a finer table would not pay.
    """
    levels = np.clip(expected.levels, 1, kept[:, None, :])
    values = np.log2(kept[:, None, :] / levels)
    empty = np.log2(np.exp2(widths)[:, None] / levels)
    table = levels * (1.2 + 0.15 * values) + np.sqrt(levels) * (2 * values + 8.1 * empty) - 15
    length = (expected.entropy + np.maximum(table, 0)) / 8
    return length + _FLUSH + 1 + (length >= 2**7) + (length >= 2**14) + (length >= 2**21)


def _index(k: int, n: int) -> float:
    """Bytes of the positions of k of n values under `tightwire.wire.indices`."""
    if k == n:
        return 0.0
    density = k / n
    likely = golomb_parameter(density)
    golomb: float = min(
        k * parameter / 8 + (k / (1 - (1 - density) ** (1 << parameter))) / 8 + 0.9
        for parameter in range(max(0, likely - 1), likely + 2)
    )
    return 1 + min(golomb, packed_length(n, 1), packed_length(k, (n - 1).bit_length()))
