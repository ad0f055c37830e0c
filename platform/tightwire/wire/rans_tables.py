"""Histograms as models of the entropy coder: how they are chosen, and written.

Neighbouring codes share one of A / 2**group shares, 0 or more, that sum to 2**precision. That of the most frequent
symbols takes what the others leave. Of those a table holds the square roots, in steps of 2**-point: since a count of c
is known to about sqrt(c) anyway, one step is worth the same everywhere. Of all tables the one is taken that makes its
own size plus the cross entropy the smallest, both exact, in integer arithmetic.

A table is one byte, group << 4 | fineness (see `scale`), and bits, least significant first: the place of the share that
takes what is left, in as many as places take, and the roots of the others, one after another. Behind a root p, or 0
before the first, the root r is written as

    2 (p - r) - 1 for r < p,  2 (r - p) for p <= r <= 2 p,  r for r > 2 p.

Behind one that is 0 or p, unless it is the last of all, comes how many more of it follow; the next must differ, and is
written as one less. Numbers are in exponential Golomb codes: of order 0 for how many follow; for roots of an order that
is 0 at first, rises by 1 after a number of 3 * 2**order or more, and falls by 1 after one below 2**order.
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
FINENESS = 15
"""Largest fineness, and"""
FINEST_POINT = 11
"""its point."""
WHOLE = 2 * FINEST_POINT + 2
"""Log2 of what parts sum to, rounded down, of which roots are taken."""
SPAN = 3
"""With n codes, points are tried from this below log2(sqrt(n)) on."""


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


@numba.njit(cache=True, nogil=True, inline="always")
def _length(value):  # type: ignore[no-untyped-def]  # numba infers the types
    """The position of the highest set bit, 0 where there is none."""
    length = 0
    while value >> (length + 1):
        length += 1
    return length


@numba.njit(cache=True, nogil=True)
def scale(fineness, group):  # type: ignore[no-untyped-def]  # numba infers the types
    """(point, precision) of a table: from 8 on, two at a time have one point, and the even one more precision."""
    finest = min(FINEST - group, FINEST_SHARES) - (fineness & 1)
    return min(fineness, 4 + (fineness >> 1)), min(2 * fineness, finest)


@numba.njit(cache=True, nogil=True)
def roots_of(parts, largest, point):  # type: ignore[no-untyped-def]  # numba infers the types
    """The roots of all but the `largest` of `parts` of 2**WHOLE, rounded, but of those that are not 0 at least 1."""
    roots = np.zeros(parts.size - 1, np.int64)
    for i in range(roots.size):
        part = parts[i + (i >= largest)]
        if part:
            doubled = np.int64(np.sqrt(part >> (WHOLE - 2 * point - 2)))  # floats are exact here
            roots[i] = max(1, (doubled + 1) >> 1)
    return roots


@numba.njit(cache=True, nogil=True)
def shares_of(roots, largest, point, precision):  # type: ignore[no-untyped-def]  # numba infers the types
    """The shares that a table means; empty where nothing is left for the largest."""
    down = 2 * point - precision
    half = (np.int64(1) << down) >> 1
    left = np.int64(1) << precision
    shares = np.zeros(roots.size + 1, np.int64)
    for i in range(roots.size):
        if roots[i]:
            share = max(1, (roots[i] * roots[i] + half) >> down)
            shares[i + (i >= largest)] = share
            left -= share
    shares[largest] = left
    return shares if left > 0 else shares[:0]


@numba.njit(cache=True, nogil=True)
def _put(value, order, out, at):  # type: ignore[no-untyped-def]  # numba infers the types
    """Write a number behind the first `at` bits of `out`, if it is not empty; where the next begins."""
    upper = (value >> order) + 1
    length = _length(upper)
    if out.size:
        word = (np.int64(1) << length) | ((upper ^ (np.int64(1) << length)) << (length + 1))
        word |= (value & ((np.int64(1) << order) - 1)) << (2 * length + 1)
        for bit in range(2 * length + 1 + order):
            out[(at + bit) >> 3] |= np.uint8(((word >> bit) & 1) << ((at + bit) & 7))
    return at + 2 * length + 1 + order


@numba.njit(cache=True, nogil=True)
def write_roots(roots, out, at):  # type: ignore[no-untyped-def]  # numba infers the types
    """Write roots behind the first `at` bits of `out`, zeros, or nowhere if it is empty; where they end."""
    none = np.int64(0)  # not a literal, of which numba would compile versions of its own
    order, previous, differs, i = none, none, 0, 0
    while i < roots.size:
        root = roots[i]
        i += 1
        value = root
        if root <= 2 * previous:
            value = ((root - previous) << 1) ^ ((root - previous) >> 63)
        value -= differs
        at = _put(value, order, out, at)
        if value >= 3 << order:
            order += 1
        elif order and value < 1 << order:
            order -= 1
        differs = 0
        if i < roots.size and (root == 0 or root == previous):
            first = i
            while i < roots.size and roots[i] == root:
                i += 1
            at = _put(np.int64(i - first), none, out, at)
            differs = 1
        previous = root
    return at


@numba.njit(cache=True, nogil=True)
def _get(data, order, at):  # type: ignore[no-untyped-def]  # numba infers the types
    """(number behind the first `at` bits of `data`, where the next begins), -1 where there is none."""
    end = data.size * 8
    length = 0
    while at < end and length <= FINEST and not (data[at >> 3] >> (at & 7)) & 1:
        length += 1
        at += 1
    value, stop = np.int64(-1), at + 1 + length + order
    if length <= FINEST and stop <= end:
        upper, low = np.int64(1) << length, np.int64(0)
        for bit in range(length):
            upper |= np.int64((data[(at + 1 + bit) >> 3] >> ((at + 1 + bit) & 7)) & 1) << bit
        at += 1 + length
        for bit in range(order):
            low |= np.int64((data[(at + bit) >> 3] >> ((at + bit) & 7)) & 1) << bit
        value = ((upper - 1) << order) | low
    return value, stop


@numba.njit(cache=True, nogil=True)
def _read(data, places, point, precision):  # type: ignore[no-untyped-def]  # numba infers the types
    """(shares, bits that they take) of a table; no shares where it is none."""
    roots = np.zeros((1 << places) - 1, np.int64)
    largest, at = np.int64(0), places
    for bit in range(min(places, data.size * 8)):
        largest |= np.int64((data[bit >> 3] >> (bit & 7)) & 1) << bit
    none = np.int64(0)  # not a literal, of which numba would compile versions of its own
    order, previous, differs, i = none, none, 0, 0
    while i < roots.size:
        value, at = _get(data, order, at)
        if value < 0:
            return roots[:0], at
        root = value + differs
        if root <= 2 * previous:
            root = previous + ((root >> 1) ^ -(root & 1))
        if root > 1 << point:
            return roots[:0], at
        if value >= 3 << order:
            order += 1
        elif order and value < 1 << order:
            order -= 1
        roots[i] = root
        i += 1
        differs = 0
        if i < roots.size and (root == 0 or root == previous):
            more, at = _get(data, none, at)
            if more < 0 or more > roots.size - i:
                return roots[:0], at
            roots[i : i + more] = root
            i += more
            differs = 1
        previous = root
    return shares_of(roots, largest, point, precision), at


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
    """(group, fineness, largest) of the table with the smallest expected size, its roots and shares, and that size."""
    best = np.int64(1) << 62
    nowhere = np.empty(0, np.uint8)
    roots = chosen_roots = chosen_shares = counts[:0]
    chosen = (0, 0, np.int64(0))
    total = counts.sum()
    useful = min(_length(total) >> 1, FINEST_POINT)
    grouped = counts.copy()
    for group in range(bits):
        largest, tried, table = np.int64(0), 0, 0
        parts = np.zeros(grouped.size, np.int64)
        for place in range(grouped.size):
            if grouped[place]:
                parts[place] = max(1, (grouped[place] << WHOLE) // total)
            if grouped[place] > grouped[largest]:
                largest = np.int64(place)
        for fineness in range(1, FINENESS + 1):
            point, precision = scale(fineness, group)
            if not useful - SPAN <= point <= max(useful, 1):
                continue
            if point != tried:
                roots = roots_of(parts, largest, point)
                table = write_roots(roots, nowhere, 8 + bits - group)
                tried = point
            shares = shares_of(roots, largest, point, precision)
            if shares.size == 0:
                continue
            size = _cost(grouped, shares, precision, group, logs)
            size += (size >> (LOSS + 2 * (FINEST - precision - group))) + (np.int64(table) << POINT)
            if size < best:
                best = size
                chosen, chosen_roots, chosen_shares = (group, fineness, largest), roots, shares
        grouped = grouped[0::2] + grouped[1::2]
    return chosen, chosen_roots, chosen_shares, best


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
    def best(cls, counts: Ints, bits: int) -> "tuple[Table, bytes, int]":
        """The table with the smallest size together with the codes that were counted, its bytes, and that size in bits.

        The first byte is from 1 to 0xBF.

        Args:
            counts: Shape (2**bits,), not all 0.
            bits: Of the codes, 1 to `MAX_BITS`.
        """
        (group, fineness, largest), roots, shares, size = _choose(counts, bits, logs())
        data = np.zeros(2 + 8 * roots.size, np.uint8)  # no root takes more
        data[:2] = largest & 0xFF, largest >> 8
        end = write_roots(roots, data, bits - group)
        table = cls(shares, scale(fineness, group)[1], group)
        return table, bytes([group << 4 | fineness]) + data[: (end + 7) // 8].tobytes(), int(size >> POINT) + 1

    def cost(self, counts: Ints) -> int | None:
        """Bits of codes with these counts, shape (2**bits,), the table not included; None when it rules one out."""
        cost = int(_cost(grouped(counts, self.group), self.shares, self.precision, self.group, logs()))
        return None if cost < 0 else cost >> POINT

    def typical(self, n: int) -> int:
        """Bits of `n` codes that are as frequent as the table says."""
        each = int(_cost(self.shares, self.shares, self.precision, self.group, logs()))
        return n * each >> POINT + self.precision

    @classmethod
    def read(cls, head: int, bits: int, source: Source) -> "Table":
        """The inverse of `best`, whose first byte was taken already.

        Raises:
            FrameError: ``tables`` when the bytes are not a table of an alphabet of 2**bits, or ``truncated``.
        """
        group, fineness = head >> 4, head & 15
        if group >= bits or not fineness:
            raise FrameError("tables", f"no table has group {group} and fineness {fineness} for codes of {bits} bits")
        point, precision = scale(fineness, group)
        shares, used = _read(source.peek(), bits - group, point, precision)
        if not shares.size:
            raise FrameError("tables", f"the roots are not those of shares that sum to 2**{precision}")
        data = source.view((used + 7) // 8)
        if used % 8 and data[-1] >> (used % 8):
            raise FrameError("tables", "bits are set behind the last root")
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
