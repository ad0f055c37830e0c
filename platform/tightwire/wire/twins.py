"""Pure NumPy twins of the compiled kernels of this room; slow, plain, and equal bit for bit."""

import zlib

import numpy as np

from tightwire.arrays import Bytes8, Ints
from tightwire.wire import checksum as checksums
from tightwire.wire.packing import LANES, ROWS, Codes


def _bits(codes: Codes, bits: int) -> Bytes8:
    """Shape (n, bits): the bits of each code, the least significant first."""
    return ((codes[:, None] >> np.arange(bits, dtype=np.uint32)) & 1).astype(np.uint8)


def _codes(bits: Bytes8) -> Codes:
    """The inverse of `_bits`."""
    weights = np.left_shift(np.uint32(1), np.arange(bits.shape[1], dtype=np.uint32), dtype=np.uint32)
    codes: Codes = (bits * weights).sum(axis=1, dtype=np.uint32)
    return codes


def pack(codes: Codes, bits: int) -> Bytes8:
    """The twin of `tightwire.wire.packing.pack`."""
    columns = codes.size // ROWS
    parts = []
    for first in range(0, columns, LANES):
        lanes = min(LANES, columns - first)
        block = codes[first * ROWS : (first + lanes) * ROWS].reshape(ROWS, lanes)
        streams = _bits(block.T.reshape(-1), bits).reshape(lanes, bits * ROWS)
        words = np.packbits(streams, axis=1, bitorder="little").view(np.uint32)
        parts.append(np.ascontiguousarray(words.T).view(np.uint8).reshape(-1))
    tail = np.packbits(_bits(codes[columns * ROWS :], bits).reshape(-1), bitorder="little")
    return np.concatenate([*parts, tail])


def unpack(data: Bytes8, n: int, bits: int) -> Codes:
    """The twin of `tightwire.wire.packing.unpack`."""
    columns = n // ROWS
    parts = []
    for first in range(0, columns, LANES):
        lanes = min(LANES, columns - first)
        part = np.ascontiguousarray(data[first * bits * 4 : (first + lanes) * bits * 4])
        words = np.ascontiguousarray(part.view(np.uint32).reshape(bits, lanes).T)
        streams = np.unpackbits(words.view(np.uint8), axis=1, bitorder="little")
        parts.append(_codes(streams.reshape(-1, bits)).reshape(lanes, ROWS).T.reshape(-1))
    rest = n - columns * ROWS
    tail = np.unpackbits(data[columns * bits * 4 :], count=rest * bits, bitorder="little")
    return np.concatenate([*parts, _codes(tail.reshape(rest, bits))])


def unary(quotients: Ints) -> Bytes8:
    """The twin of `tightwire.wire.indices.unary`."""
    ends = np.cumsum(quotients) + np.arange(quotients.size)
    marks = np.zeros(int(ends[-1]) + 1, np.uint8)
    marks[ends] = 1
    return np.packbits(marks, bitorder="little")


def checksum(data: bytes) -> int:
    """The twin of `tightwire.wire.checksum.checksum`."""
    whole = len(data) // checksums.STRIPE
    words = np.frombuffer(data, np.uint32, whole * checksums.LANES).reshape(whole, checksums.LANES)
    sums = np.zeros(checksums.LANES, np.uint32)
    for row in words:
        sums = (sums ^ row) * np.uint32(checksums.MULTIPLIER)
        sums ^= sums >> np.uint32(15)
    return zlib.crc32(data[whole * checksums.STRIPE :], zlib.crc32(sums.tobytes()))


def ends(data: Bytes8, k: int) -> Ints:
    """The twin of the loop that finds the ends of the first `k` unary codes."""
    return np.flatnonzero(np.unpackbits(data, bitorder="little"))[:k]
