"""Which k of n values were kept: the smallest of a bitmap, Golomb-Rice coded gaps, and raw indices, by exact size.

One byte names the way: 0 bitmap, 1 raw, 2 + b Golomb-Rice with parameter b. Nothing at all is written where k is n.

* bitmap: ceil(n / 8) bytes, bit i set when value i was kept;
* raw: each index in ceil(log2 n) bits;
* Golomb-Rice: of each gap g (values skipped before a kept one) the lower b bits, packed, then g >> b in unary, that
  many clear bits and a set one. Golomb 1966; the parameter for density p starts at Sattler et al. 2019 ("Sparse
  ternary compression"), equation 13: b = 1 + floor(log2(log(phi - 1) / log(1 - p))), and moves while sizes fall.
"""

import math

import numba
import numpy as np

from tightwire.arrays import Bytes8, Ints
from tightwire.errors import FrameError
from tightwire.wire.packing import pack, packed_length, unpack
from tightwire.wire.streams import Sink, Source

_BITMAP, _RAW, _GOLOMB = range(3)
_LARGEST_PARAMETER = 31


@numba.njit(cache=True, nogil=True)
def _unary(quotients, out):  # type: ignore[no-untyped-def]  # numba infers the types
    position = -1
    for quotient in quotients:
        position += quotient + 1
        out[position >> 3] |= np.uint8(1 << (position & 7))


@numba.njit(cache=True, nogil=True)
def _ends(data, ends):  # type: ignore[no-untyped-def]  # numba infers the types
    found = 0
    for at in range(data.size):
        byte = data[at]
        bit = 0
        while byte and found < ends.size:
            if byte & 1:
                ends[found] = at * 8 + bit
                found += 1
            byte >>= 1
            bit += 1
        if found == ends.size:
            break
    return found


def unary(quotients: Ints) -> Bytes8:
    """Each of the quotients, shape (k,), k > 0, in unary: so many clear bits and a set one."""
    out = np.zeros((int(quotients.sum()) + quotients.size + 7) // 8, np.uint8)
    _unary(quotients, out)
    return out


def golomb_parameter(density: float) -> int:
    """The Golomb-Rice parameter for gaps between values kept with probability `density`, in (0, 1)."""
    golden = (1 + math.sqrt(5)) / 2
    return min(_LARGEST_PARAMETER, max(0, 1 + math.floor(math.log2(math.log(golden - 1) / math.log1p(-density)))))


def _golomb_length(gaps: Ints, bits: int) -> int:
    return packed_length(gaps.size, bits) + (int((gaps >> bits).sum()) + gaps.size + 7) // 8


def _best_golomb(gaps: Ints, density: float) -> tuple[int, int]:
    """(bytes, parameter) of the shortest Golomb-Rice code near the optimum for independent positions."""
    best = golomb_parameter(density)
    length = _golomb_length(gaps, best)
    for step in (-1, 1):
        while 0 <= best + step <= _LARGEST_PARAMETER and (other := _golomb_length(gaps, best + step)) < length:
            best, length = best + step, other
    return length, best


def write(indices: Ints, n: int, sink: Sink) -> None:
    """Write `indices`, shape (k,), strictly increasing, in [0, n), to the section of that name."""
    k = indices.size
    if k == n:
        return
    gaps = np.diff(indices, prepend=-1) - 1
    width = (n - 1).bit_length()
    length, bits = _best_golomb(gaps, k / n)
    choices = ((packed_length(n, 1), _BITMAP), (length, _GOLOMB + bits), (packed_length(k, width), _RAW))
    mode = min(choices, key=lambda choice: choice[0])[1]
    sink.write("indices", bytes([mode]))
    if mode == _BITMAP:
        kept = np.zeros(n, np.uint8)
        kept[indices] = 1
        sink.write("indices", np.packbits(kept, bitorder="little"))
    elif mode == _RAW:
        sink.write("indices", pack(indices.astype(np.uint32), width))
    else:
        sink.write("indices", pack((gaps & ((1 << bits) - 1)).astype(np.uint32), bits))
        sink.write("indices", unary(gaps >> bits))


def read(k: int, n: int, source: Source) -> Ints:
    """The inverse of `write`.

    Raises:
        FrameError: ``indices`` when they are not k increasing numbers below n, or ``truncated``.
    """
    if k == n:
        return np.arange(n)
    mode = source.byte()
    if mode == _BITMAP:
        indices = _read_bitmap(n, source)
    elif mode == _RAW:
        width = (n - 1).bit_length()
        indices = unpack(source.array(packed_length(k, width)), k, width).astype(np.int64)
    elif mode <= _GOLOMB + _LARGEST_PARAMETER:
        indices = _read_golomb(k, n, mode - _GOLOMB, source)
    else:
        raise FrameError("indices", f"indices are coded in way {mode}; there are 0 to {_GOLOMB + _LARGEST_PARAMETER}")
    if indices.size != k or indices[-1] >= n or (np.diff(indices) <= 0).any():
        raise FrameError("indices", f"the indices are not {k} increasing numbers below {n}")
    return indices


def _read_bitmap(n: int, source: Source) -> Ints:
    bits = np.unpackbits(source.array(packed_length(n, 1)), bitorder="little")
    if bits[n:].any():
        raise FrameError("indices", f"bits are set beyond the {n} of the bitmap")
    return np.flatnonzero(bits)


def _read_golomb(k: int, n: int, bits: int, source: Source) -> Ints:
    remainders = unpack(source.array(packed_length(k, bits)), k, bits)
    ends = np.empty(k, np.int64)
    data = source.peek()
    if _ends(data, ends) < k:
        raise FrameError("truncated", f"the gaps of {k} kept values end early")
    end = int(ends[-1])
    if int(source.take(end // 8 + 1)[-1]) >> (end % 8 + 1):
        raise FrameError("indices", "bits are set behind the last gap")
    quotients = np.diff(ends, prepend=-1) - 1
    if int(quotients.max()) > n >> bits:
        raise FrameError("indices", f"a gap is longer than the {n} values")
    return np.cumsum((quotients << bits) + remainders + 1) - 1
