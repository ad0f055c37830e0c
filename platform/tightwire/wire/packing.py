"""Bit packing: n codes of b bits take exactly ceil(n * b / 8) bytes.

Codes are packed vertically, in blocks of 32 rows by up to 512 lanes: a row is a run of consecutive codes, lane l owns
the l-th code of every row, a lane's 32 codes lie end to end in b 32-bit words, least significant bit first, and word
w of all lanes is stored side by side (the vertical layout of Lemire and Boytsov 2015, "Decoding billions of integers
per second through vectorization", section 4, with wide rows). All lanes shift by the same amount, so the inner loops
run on SIMD registers for every b. Blocks have 512 lanes but the last, which has as many as it can fill; the n % 32
codes that are left are packed plainly, least significant bit first. Words are little-endian.

The kernels here have pure NumPy twins in `tightwire.wire.twins`, equal bit for bit.
"""

import numba
import numpy as np
import numpy.typing as npt

from tightwire.arrays import Bytes8
from tightwire.wire.words import shl32, shr32

Codes = npt.NDArray[np.uint32]
"""Integer codes, shape (n,)."""

ROWS = 32
LANES = 512
MAX_BITS = 32


def packed_length(n: int, bits: int) -> int:
    """Bytes that `n` codes of `bits` bits take: ceil(n * bits / 8)."""
    return (n * bits + 7) // 8


def split(data: Bytes8, n: int, bits: int) -> tuple[Codes, Bytes8]:
    """Views of packed `data`: the words of the blocks, and the bytes of the tail."""
    edge = n // ROWS * bits * 4
    return data[:edge].view(np.uint32), data[edge:]


def empty(n: int, bits: int) -> Bytes8:
    """Unset memory for `n` packed codes, its tail zeroed as the kernels want it."""
    data = np.empty(packed_length(n, bits), np.uint8)
    data[n // ROWS * bits * 4 :] = 0
    return data


@numba.njit(cache=True, nogil=True, inline="always")
def find_row(words, base, row, lanes, bits):  # type: ignore[no-untyped-def]  # numba infers the types
    """(lowest bit of row `row` in its words, those words, the words that follow) in the block at words[base:]."""
    start = base + (row * bits >> 5) * lanes
    return np.uint32(row * bits & 31), words[start : start + lanes], words[start + lanes : start + 2 * lanes]


@numba.njit(cache=True, nogil=True, inline="always")
def put_row(codes, words, base, row, lanes, bits):  # type: ignore[no-untyped-def]  # numba infers the types
    """Pack `codes` as row `row` of the block at words[base:]; rows come in order from 0."""
    offset, here, following = find_row(words, base, row, lanes, bits)
    if offset == 0:
        for lane in range(lanes):
            here[lane] = codes[lane]
    else:
        for lane in range(lanes):
            here[lane] |= shl32(codes[lane], offset)
    if offset + bits > 32:
        back = np.uint32(32 - offset)
        for lane in range(lanes):
            following[lane] = shr32(codes[lane], back)


@numba.njit(cache=True, nogil=True, inline="always")
def get_row(words, base, row, lanes, bits, codes):  # type: ignore[no-untyped-def]  # numba infers the types
    """Unpack row `row` of the block at words[base:] into `codes`."""
    mask = np.uint32((np.int64(1) << bits) - 1)
    offset, here, following = find_row(words, base, row, lanes, bits)
    if offset + bits > 32:
        back = np.uint32(32 - offset)
        for lane in range(lanes):
            codes[lane] = (shr32(here[lane], offset) | shl32(following[lane], back)) & mask
    else:
        for lane in range(lanes):
            codes[lane] = shr32(here[lane], offset) & mask


@numba.njit(cache=True, nogil=True, inline="always")
def put_tail(tail, at, code, bits):  # type: ignore[no-untyped-def]  # numba infers the types
    """Write one code at bit position at * bits of the tail, whose bytes start as zero."""
    start = np.int64(at) * bits
    value = np.uint64(code) << np.uint64(start & 7)
    byte = start >> 3
    while value:
        tail[byte] |= np.uint8(value & np.uint64(255))
        value >>= np.uint64(8)
        byte += 1


@numba.njit(cache=True, nogil=True, inline="always")
def get_tail(tail, at, bits):  # type: ignore[no-untyped-def]  # numba infers the types
    """Read one code from bit position at * bits of the tail."""
    start = np.int64(at) * bits
    value = np.uint64(0)
    for byte in range(start >> 3, (start + bits + 7) >> 3):
        value |= np.uint64(tail[byte]) << np.uint64((byte - (start >> 3)) * 8)
    return np.uint32((value >> np.uint64(start & 7)) & np.uint64((np.int64(1) << bits) - 1))


@numba.njit(cache=True, nogil=True)
def _pack(codes, bits, words, tail):  # type: ignore[no-untyped-def]  # numba infers the types
    columns = codes.size // ROWS
    for first in range(0, columns, LANES):
        lanes = min(LANES, columns - first)
        for row in range(ROWS):
            start = first * ROWS + row * lanes
            put_row(codes[start : start + lanes], words, first * bits, row, lanes, bits)
    for at in range(codes.size - columns * ROWS):
        put_tail(tail, at, codes[columns * ROWS + at], bits)


@numba.njit(cache=True, nogil=True)
def _unpack(words, tail, bits, codes):  # type: ignore[no-untyped-def]  # numba infers the types
    columns = codes.size // ROWS
    for first in range(0, columns, LANES):
        lanes = min(LANES, columns - first)
        for row in range(ROWS):
            start = first * ROWS + row * lanes
            get_row(words, first * bits, row, lanes, bits, codes[start : start + lanes])
    for at in range(codes.size - columns * ROWS):
        codes[columns * ROWS + at] = get_tail(tail, at, bits)


def pack(codes: Codes, bits: int) -> Bytes8:
    """Pack codes, each below 2**bits, to ceil(n * bits / 8) bytes.

    Args:
        codes: Shape (n,), contiguous.
        bits: 0 to 32; 0 gives no bytes.
    """
    data = empty(codes.size, bits)
    if bits:
        _pack(codes, bits, *split(data, codes.size, bits))
    return data


def unpack(data: Bytes8, n: int, bits: int) -> Codes:
    """The inverse of `pack`: `n` codes from exactly ceil(n * bits / 8) contiguous bytes."""
    if bits == 0:
        return np.zeros(n, np.uint32)
    codes = np.empty(n, np.uint32)
    _unpack(*split(data, n, bits), bits, codes)
    return codes
