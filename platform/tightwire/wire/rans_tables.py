"""Histograms as models of the entropy coder: how they are chosen, and written.

Neighbouring codes share one of A / 2**group counts, and the counts, 0 or more, sum to 2**precision. Both are chosen by
the exact size of the table plus the cross entropy, in integer arithmetic. A table is one byte (group << 4 |
precision - `COARSEST` + 1) and the counts, each as the signed difference to its predecessor in an exponential Golomb
code whose order follows that predecessor.
"""

from dataclasses import dataclass
from functools import cache

import numba
import numpy as np

from tightwire.arrays import AnyArray, Ints
from tightwire.errors import FrameError
from tightwire.wire import rans_kernels as kernels
from tightwire.wire.streams import Source

MAX_BITS = 12
"""Alphabets beyond 2**12 symbols stay packed."""
FINEST = 16
"""Largest precision + group: no state is smaller than 2**this."""
FINEST_SHARES = 15
"""Largest precision."""
LOSS = 10
"""Log2 of the part of the size by which a coder with precision + group = `FINEST` misses it, as measured; of its size
it misses a fourth as much with each bit less."""
POINT = 16
"""Fractional bits of the fixed-point logarithms."""
COARSEST = 5
"""Smallest precision."""


@cache
def logs() -> Ints:
    """log2 of 1 to 2**15 in fixed point, by repeated squaring: the same on every machine. Entry 0 is 0."""
    values = np.arange((1 << FINEST_SHARES) + 1, dtype=np.int64)
    whole = np.zeros_like(values)
    for shift in range(1, FINEST_SHARES + 1):
        whole += values >> shift > 0
    x = (values << 30) >> whole
    result = whole.copy()
    for _ in range(POINT):
        x = (x * x) >> 30
        result = result << 1 | x >> 31
        x >>= x >> 31
    result.flags.writeable = False
    return result


@numba.njit(cache=True, nogil=True)
def normalise(counts, precision):  # type: ignore[no-untyped-def]  # numba infers the types
    """Scale counts to sum to 2**precision, present ones to at least 1; empty when there are too many of them."""
    scale = np.int64(1) << precision
    total = counts.sum()
    shares = np.zeros(counts.size, np.int64)
    largest = 0
    for i in range(counts.size):
        if counts[i]:
            shares[i] = max(1, (counts[i] * scale + total // 2) // total)
            if shares[i] > shares[largest]:
                largest = i
    excess = shares.sum() - scale
    if shares[largest] <= 2 * excess:
        return shares[:0]
    shares[largest] -= excess
    return shares


@numba.njit(cache=True, nogil=True, inline="always")
def _length(value):  # type: ignore[no-untyped-def]  # numba infers the types
    """The position of the highest set bit, 0 where there is none."""
    length = 0
    while value >> (length + 1):
        length += 1
    return length


@numba.njit(cache=True, nogil=True, inline="always")
def _order(previous):  # type: ignore[no-untyped-def]  # numba infers the types
    """The order of the exponential Golomb code behind a count."""
    return max(_length(previous) - 1, 0)


@numba.njit(cache=True, nogil=True)
def table_bits(shares):  # type: ignore[no-untyped-def]  # numba infers the types
    """Bits of the coded counts."""
    bits = 0
    previous = np.int64(0)
    for share in shares:
        step = share - previous
        value = (step << 1) ^ (step >> 63)
        order = _order(previous)
        bits += 2 * _length((value >> order) + 1) + 1 + order
        previous = share
    return bits


@numba.njit(cache=True, nogil=True)
def _write(shares, out):  # type: ignore[no-untyped-def]  # numba infers the types
    at = 0
    previous = np.int64(0)
    for share in shares:
        step = share - previous
        value = (step << 1) ^ (step >> 63)
        order = _order(previous)
        upper = (value >> order) + 1
        length = _length(upper)
        word = (np.int64(1) << length) | ((upper ^ (np.int64(1) << length)) << (length + 1))
        word |= (value & ((np.int64(1) << order) - 1)) << (2 * length + 1)
        for bit in range(2 * length + 1 + order):
            out[at >> 3] |= np.uint8(((word >> bit) & 1) << (at & 7))
            at += 1
        previous = share


@numba.njit(cache=True, nogil=True)
def _read(data, shares, precision):  # type: ignore[no-untyped-def]  # numba infers the types
    """Fill `shares` from `data`; the bits used, or -1 for bits that are not a table."""
    at = 0
    end = data.size * 8
    previous = np.int64(0)
    left = np.int64(1) << precision
    for i in range(shares.size):
        order = _order(previous)
        length = 0
        while at < end and not (data[at >> 3] >> (at & 7)) & 1:
            length += 1
            at += 1
        if length > precision + 1 or at + 1 + length + order > end:
            return -1
        at += 1
        upper = np.int64(1) << length
        for bit in range(length):
            upper |= np.int64((data[at >> 3] >> (at & 7)) & 1) << bit
            at += 1
        value = (upper - 1) << order
        for bit in range(order):
            value |= np.int64((data[at >> 3] >> (at & 7)) & 1) << bit
            at += 1
        previous += (value >> 1) ^ -(value & 1)
        left -= previous
        if previous < 0 or left < 0:
            return -1
        shares[i] = previous
    return at if left == 0 else -1


@numba.njit(cache=True, nogil=True)
def _cost(counts, shares, precision, group, logs):  # type: ignore[no-untyped-def]  # numba infers the types
    """Bits, in fixed point, of codes with these counts; negative when a share of 0 rules one out."""
    size = np.int64(0)
    for i in range(shares.size):
        if counts[i]:
            if shares[i] == 0:
                return np.int64(-1)
            size += counts[i] * (((precision + group) << POINT) - logs[shares[i]])
    return size


@numba.njit(cache=True, nogil=True)
def _choose(counts, bits, logs):  # type: ignore[no-untyped-def]  # numba infers the types
    """(group, precision) of the table with the smallest expected size, and that size in fixed-point bits.

    A precision that tells values apart more than fourfold is not tried.
    """
    best = np.int64(1) << 62
    chosen = (0, COARSEST)
    grouped = counts.copy()
    useful = max(COARSEST, _length(counts.sum()) + 2)
    for group in range(bits):
        for precision in range(COARSEST, min(FINEST - group, FINEST_SHARES, useful) + 1):
            shares = normalise(grouped, precision)
            if shares.size == 0:
                continue
            size = _cost(grouped, shares, precision, group, logs)
            size += (size >> (LOSS + 2 * (FINEST - precision - group))) + (np.int64(table_bits(shares)) << POINT)
            if size < best:
                best = size
                chosen = (group, precision)
        grouped = grouped[0::2] + grouped[1::2]
    return chosen, best


def grouped(counts: Ints, group: int) -> Ints:
    """Counts of 2**group neighbouring codes together."""
    result: Ints = counts.reshape(-1, 1 << group).sum(axis=1)
    return result


@dataclass(frozen=True, slots=True, eq=False)
class Table:
    """A model of codes."""

    shares: Ints
    """Of each group of codes; they sum to 2**precision."""
    precision: int
    group: int
    """Log2 of the codes in a group."""

    @classmethod
    def best(cls, counts: Ints, bits: int) -> "tuple[Table, int]":
        """The table with the smallest size together with the codes that were counted, and that size in bits.

        Args:
            counts: Shape (2**bits,), not all 0.
            bits: Of the codes, 1 to `MAX_BITS`.
        """
        (group, precision), size = _choose(counts, bits, logs())
        return cls(normalise(grouped(counts, group), precision), precision, group), int(size >> POINT) + 8

    def cost(self, counts: Ints) -> int | None:
        """Bits of codes with these counts, shape (2**bits,), the table not included; None when it rules one out."""
        cost = int(_cost(grouped(counts, self.group), self.shares, self.precision, self.group, logs()))
        return None if cost < 0 else cost >> POINT

    def pack(self) -> bytes:
        """Its bytes; the first is never 0 and never 255."""
        data = np.zeros((table_bits(self.shares) + 7) // 8, np.uint8)
        _write(self.shares, data)
        return bytes([self.group << 4 | self.precision - COARSEST + 1]) + data.tobytes()

    @classmethod
    def read(cls, head: int, bits: int, source: Source) -> "Table":
        """The inverse of `pack`, whose first byte was taken already.

        Raises:
            FrameError: ``tables`` when the bytes are not a table of an alphabet of 2**bits, or ``truncated``.
        """
        group, precision = head >> 4, (head & 15) + COARSEST - 1
        if group >= bits or not COARSEST <= precision <= min(FINEST - group, FINEST_SHARES):
            raise FrameError("tables", f"no table has group {group} and precision {precision} for codes of {bits} bits")
        shares = np.zeros(1 << (bits - group), np.int64)
        used = _read(source.peek(), shares, precision)
        if used < 0:
            raise FrameError("tables", f"the counts do not sum to 2**{precision}")
        data = source.take((used + 7) // 8)
        if used % 8 and data[-1] >> (used % 8):
            raise FrameError("tables", "bits are set behind the last count")
        return cls(shares, precision, group)

    def encoding(self) -> AnyArray:
        """What `tightwire.wire.rans_kernels.push` looks up."""
        table = np.zeros(self.shares.size, np.uint64)
        kernels.tables(self.shares, table, np.empty(0, np.uint8), np.empty(0, np.uint32))
        return table

    def decoding(self) -> tuple[AnyArray, AnyArray]:
        """What `tightwire.wire.rans_kernels.pull` looks up."""
        symbols: AnyArray = np.empty(1 << self.precision, np.uint8 if self.shares.size <= 256 else np.uint16)
        table = np.zeros(self.shares.size, np.uint32)
        kernels.tables(self.shares, np.empty(0, np.uint64), symbols, table)
        return symbols, table


def count(codes: AnyArray, bits: int) -> Ints:
    """How often each of the 2**bits codes occurs."""
    counts = np.zeros((4, 1 << bits), np.int64)
    kernels.count(codes, counts)
    total: Ints = counts.sum(axis=0)
    return total
