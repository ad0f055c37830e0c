"""The checksum of a frame: a CRC-32 over 64 striped sums, which a SIMD unit takes at memory speed.

Whole stripes of 256 bytes are read as 64 little-endian 32-bit words, and each of 64 lanes folds its words w as
h = (h ^ w) * 0x9E3779B1 modulo 2**32, then h = h ^ (h >> 15). Both steps are invertible, so any change within one
word of a lane changes its sum.
The check is the CRC-32 (as in zlib) of the 64 sums followed by the bytes that fill no whole stripe.
"""

import zlib
from typing import Final

import numba
import numpy as np

from tightwire.wire.words import mul32, shr32, xor32

STRIPE: Final = 256
LANES: Final = 64
MULTIPLIER: Final = 0x9E3779B1


@numba.njit(cache=True, nogil=True)
def _fold(words, sums):  # type: ignore[no-untyped-def]  # numba infers the types
    for start in range(0, words.size, LANES):
        part = words[start : start + LANES]
        for lane in range(LANES):
            mixed = mul32(xor32(sums[lane], part[lane]), np.uint32(MULTIPLIER))
            sums[lane] = xor32(mixed, shr32(mixed, np.uint32(15)))


class Checksum:
    """The check of bytes that come in pieces."""

    def __init__(self) -> None:
        self._sums = np.zeros(LANES, np.uint32)
        self._rest = b""

    def update(self, piece: bytes | memoryview) -> None:
        """Take in the next bytes."""
        data = memoryview(piece)
        if self._rest:
            missing = STRIPE - len(self._rest)
            self._rest += data[:missing]
            data = data[missing:]
            if len(self._rest) < STRIPE:
                return
            _fold(np.frombuffer(self._rest, np.uint32), self._sums)
        whole = len(data) // STRIPE * STRIPE
        if whole:
            _fold(np.frombuffer(data, np.uint32, whole // 4), self._sums)
        self._rest = bytes(data[whole:])

    @property
    def value(self) -> int:
        """The check of all bytes so far, in [0, 2**32)."""
        return zlib.crc32(self._rest, zlib.crc32(self._sums.tobytes()))


def checksum(data: bytes | memoryview) -> int:
    """The check of `data`, in [0, 2**32)."""
    check = Checksum()
    check.update(data)
    return check.value
