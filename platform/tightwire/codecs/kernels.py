"""Loops that many codecs need, compiled by numba; `tightwire.codecs.twins` holds the same in pure NumPy, equal in bits.

No loop is compiled with fast-math, so nothing is contracted or reordered and the bits are the same on every machine.
"""

import numba
import numpy as np
import numpy.typing as npt

from tightwire.arrays import Flat
from tightwire.wire.words import mul32, shr32, xor32

Bits = npt.NDArray[np.int32]
"""The bits of floats, shape (n,)."""

STEP = np.uint32(0x9E3779B9)
"""What the noise of one value and the next are apart, before they are mixed."""
FOLD = np.int32(0x7FFFFFFF)
"""All bits of a float32 but its sign; also what maps negative floats to integers of the same order."""


@numba.njit(cache=True, nogil=True)
def _extremes(raw, out):  # type: ignore[no-untyped-def]  # numba infers the types
    low = np.int32(0x7FFFFFFF)
    high = np.int32(-0x80000000)
    for i in range(raw.size):
        key = np.int32(raw[i] ^ ((raw[i] >> np.int32(31)) & FOLD))
        low = min(low, key)
        high = max(high, key)
    out[0] = low ^ ((low >> np.int32(31)) & FOLD)
    out[1] = high ^ ((high >> np.int32(31)) & FOLD)


def extremes(values: Flat) -> tuple[np.float32, np.float32]:
    """Smallest and largest of `values` in one pass, by the integer order of their bits.

    A NaN orders beyond the infinities, so both results are finite just when all values are.

    Args:
        values: Shape (n,), n > 0, contiguous.
    """
    both = np.empty(2, np.float32)
    _extremes(values.view(np.int32), both.view(np.int32))
    return both[0], both[1]


@numba.njit(cache=True, nogil=True)
def _group_extremes(raw, length, out):  # type: ignore[no-untyped-def]  # numba infers the types
    for group in range(out.shape[0]):
        _extremes(raw[group * length : min((group + 1) * length, raw.size)], out[group])


def group_extremes(values: Flat, length: int) -> Flat:
    """Smallest and largest of each group of `length` values, as `extremes` finds them, shape (groups, 2).

    Args:
        values: Shape (n,), n > 0, contiguous; the last group may be shorter.
        length: More than 0.
    """
    out = np.empty((-(-values.size // length), 2), np.float32)
    _group_extremes(values.view(np.int32), length, out.view(np.int32))
    return out


@numba.njit(cache=True, nogil=True)
def _peaks(ends, out):  # type: ignore[no-untyped-def]  # numba infers the types
    for group in range(out.size):
        out[group] = max(abs(ends[group, 0]), abs(ends[group, 1]))


def peaks(ends: Flat) -> Flat:
    """The largest magnitude of each group, shape (groups,), from its finite `group_extremes`."""
    out = np.empty(ends.shape[0], np.float32)
    _peaks(ends, out)
    return out


@numba.njit(cache=True, nogil=True, inline="always")
def noise_word(walk, k0, k1):  # type: ignore[no-untyped-def]  # numba infers the types
    """A uniform uint32 for the value whose index times `STEP` is `walk`: a keyed 32-bit mix.

    The mix is Wellons' "Prospecting for hash functions", two rounds, k1 entering between them.
    """
    x = xor32(walk, k0)
    x = xor32(mul32(xor32(x, shr32(x, np.uint32(16))), np.uint32(0x21F0AAAD)), k1)
    x = mul32(xor32(x, shr32(x, np.uint32(15))), np.uint32(0x735A2D97))
    return xor32(x, shr32(x, np.uint32(15)))


@numba.njit(cache=True, nogil=True, inline="always")
def noise(walk, k0, k1):  # type: ignore[no-untyped-def]  # numba infers the types
    """The upper 24 bits of `noise_word`: a uniform integer in [0, 2**24)."""
    return np.int32(shr32(noise_word(walk, k0, k1), np.uint32(8)))
