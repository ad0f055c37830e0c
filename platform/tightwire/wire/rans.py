"""Entropy coding of packed codes with rANS (Duda 2013), through the constriction library, with a static model.

The model is a histogram: neighbouring codes share one of A / 2**group counts, and the counts, 0 or more, sum to
2**precision. Both are chosen by the exact size of the table plus the cross entropy, in integer arithmetic. A table is
one byte (group << 4 | precision - 4; 0 stands for codes that stay packed) and the counts, each as the signed
difference to its predecessor in an exponential Golomb code whose order follows that predecessor.
"""

import constriction
import numba
import numpy as np

from tightwire.arrays import AnyArray, Bytes8, Ints
from tightwire.errors import FrameError
from tightwire.wire.streams import Sink, Source, varint

MAX_BITS = 12
"""Alphabets beyond 2**12 symbols stay packed."""

_PRECISIONS = (6, 8, 10, 12, 14, 16)
_FINEST = 22
"""Largest precision + group, so that float32 sums of the model's weights are exact."""
_POINT = 16
"""Fractional bits of the fixed-point logarithms."""


@numba.njit(cache=True, nogil=True)
def _log2(value):  # type: ignore[no-untyped-def]  # numba infers the types
    """log2 of a positive integer below 2**31 in fixed point, by repeated squaring: the same on every machine."""
    whole = 0
    while value >> (whole + 1):
        whole += 1
    x = (value << 30) >> whole
    result = whole
    for _ in range(_POINT):
        x = (x * x) >> 30
        result <<= 1
        if x >> 31:
            result |= 1
            x >>= 1
    return result


@numba.njit(cache=True, nogil=True)
def _normalise(counts, precision):  # type: ignore[no-untyped-def]  # numba infers the types
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


@numba.njit(cache=True, nogil=True)
def _order(previous):  # type: ignore[no-untyped-def]  # numba infers the types
    order = 0
    while previous >> (order + 2):
        order += 1
    return order


@numba.njit(cache=True, nogil=True)
def _table_bits(shares):  # type: ignore[no-untyped-def]  # numba infers the types
    bits = 0
    previous = np.int64(0)
    for share in shares:
        step = share - previous
        value = (step << 1) ^ (step >> 63)
        order = _order(previous)
        length = 0
        while ((value >> order) + 1) >> (length + 1):
            length += 1
        bits += 2 * length + 1 + order
        previous = share
    return bits


@numba.njit(cache=True, nogil=True)
def _write_counts(shares, out):  # type: ignore[no-untyped-def]  # numba infers the types
    at = 0
    previous = np.int64(0)
    for share in shares:
        step = share - previous
        value = (step << 1) ^ (step >> 63)
        order = _order(previous)
        upper = (value >> order) + 1
        length = 0
        while upper >> (length + 1):
            length += 1
        word = (np.int64(1) << length) | ((upper ^ (np.int64(1) << length)) << (length + 1))
        word |= (value & ((np.int64(1) << order) - 1)) << (2 * length + 1)
        for bit in range(2 * length + 1 + order):
            out[at >> 3] |= np.uint8(((word >> bit) & 1) << (at & 7))
            at += 1
        previous = share


@numba.njit(cache=True, nogil=True)
def _read_counts(data, shares, precision):  # type: ignore[no-untyped-def]  # numba infers the types
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
def _choose(counts, bits, precisions):  # type: ignore[no-untyped-def]  # numba infers the types
    """(group, precision) of the table with the smallest expected size in bits, and that size."""
    best = np.int64(1) << 62
    chosen = (0, 0)
    grouped = counts.copy()
    for group in range(bits):
        for precision in precisions:
            shares = _normalise(grouped, precision)
            if shares.size == 0 or precision + group > _FINEST:
                continue
            size = _table_bits(shares) << _POINT
            for i in range(shares.size):
                if shares[i]:
                    size += grouped[i] * (((precision + group) << _POINT) - _log2(shares[i]))
            if size < best:
                best = size
                chosen = (group, precision)
        grouped = grouped[0::2] + grouped[1::2]
    return chosen, best >> _POINT


def _model(shares: Ints, group: int) -> object:
    """The categorical model over the whole alphabet; the weights sum to a power of two, so nothing is rounded."""
    weights: AnyArray = np.repeat(shares, 1 << group).astype(np.float32)
    return constriction.stream.model.Categorical(weights, perfect=False)


def write(codes: AnyArray, bits: int, packed: int, sink: Sink) -> bytes | None:
    """Choose a model for `codes` and write its table and the length of the coded bytes to the section ``tables``.

    Args:
        codes: Shape (n,), n > 0, integers below 2**bits.
        bits: 1 to `MAX_BITS`.
        packed: Bytes the codes take without entropy coding.
        sink: Where the table goes.

    Returns:
        The coded bytes, or None when packing is not larger; then one zero byte was written.
    """
    counts = np.bincount(codes, minlength=1 << bits)
    (group, precision), expected = _choose(counts, bits, np.array(_PRECISIONS, np.int64))
    if expected < packed * 8:
        grouped = counts.reshape(-1, 1 << group).sum(axis=1)
        shares = _normalise(grouped, precision)
        table = np.zeros((_table_bits(shares) + 7) // 8, np.uint8)
        _write_counts(shares, table)
        coder = constriction.stream.stack.AnsCoder()
        coder.encode_reverse(codes.astype(np.int32), _model(shares, group))
        coded: bytes = coder.get_compressed().astype("<u4", copy=False).tobytes().rstrip(b"\0")
        length = varint(len(coded))
        if table.size + len(length) + len(coded) < packed:
            sink.write("tables", bytes([group << 4 | precision - 4]))
            sink.write("tables", table)
            sink.write("tables", length)
            return coded
    sink.write("tables", b"\0")
    return None


def read_table(bits: int, source: Source) -> tuple[Ints, int, int] | None:
    """The inverse of `write`: (shares, group, length of the coded bytes), or None for codes that stayed packed.

    Raises:
        FrameError: ``tables`` when the bytes are not a table of an alphabet of 2**bits, or ``truncated``.
    """
    head = source.byte()
    if head == 0:
        return None
    group, precision = head >> 4, (head & 15) + 4
    if group >= bits or precision not in _PRECISIONS or precision + group > _FINEST:
        raise FrameError("tables", f"no table has group {group} and precision {precision} for codes of {bits} bits")
    shares = np.zeros(1 << (bits - group), np.int64)
    used = _read_counts(source.peek(), shares, precision)
    if used < 0:
        raise FrameError("tables", f"the counts do not sum to 2**{precision}")
    table = source.take((used + 7) // 8)
    if used % 8 and table[-1] >> (used % 8):
        raise FrameError("tables", "bits are set behind the last count")
    return shares, group, source.varint()


def decode(coded: Bytes8, n: int, shares: Ints, group: int) -> AnyArray:
    """Decode `n` codes, int32, from all of `coded`.

    Raises:
        FrameError: ``codes`` when the decoder does not end with every bit used, or meets a code the table rules out.
    """
    if coded.size and coded[-1] == 0:
        raise FrameError("codes", "coded bytes end in a zero, which no coder writes")
    words = np.zeros((coded.size + 3) // 4, "<u4")
    words.view(np.uint8)[: coded.size] = coded
    coder = constriction.stream.stack.AnsCoder(words.astype(np.uint32, copy=False))
    codes = coder.decode(_model(shares, group), n)
    if not coder.is_empty():
        raise FrameError("codes", f"coded bytes are left over after {n} codes")
    if not shares[codes >> group].all():
        raise FrameError("codes", "a code is not in its table")
    result: AnyArray = codes
    return result
