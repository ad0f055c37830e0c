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
from tightwire.wire.packing import Codes, pack, packed_length, unpack
from tightwire.wire.streams import Sink, Source
from tightwire.wire.words import ones64, shr32

_BITMAP, _RAW, _GOLOMB = range(3)
_LARGEST_PARAMETER = 31


@numba.njit(cache=True, nogil=True)
def _gaps(indices):  # type: ignore[no-untyped-def]  # numba infers the types
    gaps = np.empty(indices.size, np.uint32)
    gaps[0] = indices[0]
    for at in range(1, indices.size):
        gaps[at] = indices[at] - indices[at - 1] - 1
    return gaps


@numba.njit(cache=True, nogil=True)
def _quotients(gaps, bits):  # type: ignore[no-untyped-def]  # numba infers the types
    total = np.uint64(0)
    shift = np.uint32(bits)
    for at in range(gaps.size):
        total += np.uint64(shr32(gaps[at], shift))
    return np.int64(total)


@numba.njit(cache=True, nogil=True)
def _split(gaps, bits, out):  # type: ignore[no-untyped-def]  # numba infers the types
    """The lower bits of each gap; what is above them goes in unary to `out`, 64-bit words of zeros."""
    mask = np.uint32((np.int64(1) << bits) - 1)
    shift = np.uint32(bits)
    rest = np.empty(gaps.size, np.uint32)
    position, place, word = np.uint64(0), np.uint64(0), np.uint64(0)
    for at in range(gaps.size):
        position += np.uint64(shr32(gaps[at], shift))
        if position >> np.uint64(6) != place:
            out[place] = word
            place, word = position >> np.uint64(6), np.uint64(0)
        word |= np.uint64(1) << (position & np.uint64(63))
        position += np.uint64(1)
        rest[at] = gaps[at] & mask
    out[place] = word
    return rest


@numba.njit(cache=True, nogil=True)
def _ends(data, ends):  # type: ignore[no-untyped-def]  # numba infers the types
    """Positions of the set bits of `data` until `ends` is full; how many there are."""
    found = np.uint64(0)
    room = np.uint64(ends.size)
    whole = data.size // 8 * 8
    for at in range(0, whole, 8):
        word = np.uint64(0)
        for byte in range(8):
            word |= np.uint64(data[at + byte]) << np.uint64(8 * byte)
        first = np.uint64(at) << np.uint64(3)
        while word and found < room:
            below = word - np.uint64(1)
            ends[found] = first + ones64(~word & below)
            found += np.uint64(1)
            word &= below
        if found == room:
            return np.int64(found)
    for at in range(whole, data.size):
        for bit in range(8):
            if data[at] >> bit & 1 and found < room:
                ends[found] = at * 8 + bit
                found += np.uint64(1)
    return np.int64(found)


@numba.njit(cache=True, nogil=True)
def _joined(ends, rest, bits, n):  # type: ignore[no-untyped-def]  # numba infers the types
    """Turn the ends of unary quotients into indices in place; whether all are below n."""
    index, before = np.int64(-1), np.int64(-1)
    for at in range(ends.size):
        quotient = ends[at] - before - 1
        before = ends[at]
        if quotient > n >> bits:
            return False
        index += (quotient << bits) + np.int64(rest[at]) + 1
        if index >= n:
            return False
        ends[at] = index
    return True


@numba.njit(cache=True, nogil=True)
def _rising(indices):  # type: ignore[no-untyped-def]  # numba infers the types
    good = True
    for at in range(1, indices.size):
        good &= indices[at] > indices[at - 1]
    return good


def _parted(gaps: Codes, bits: int, length: int) -> tuple[Codes, Bytes8]:
    """The lower bits of each gap, and what is above them in unary, padded to `length` bytes."""
    words = np.zeros((length + 7) // 8, "<u8")
    rest: Codes = _split(gaps, bits, words)
    return rest, words.view(np.uint8)[:length]


def unary(quotients: Codes) -> Bytes8:
    """Each of the quotients, shape (k,), k > 0, in unary: so many clear bits and a set one."""
    return _parted(quotients, 0, (int(quotients.sum()) + quotients.size + 7) // 8)[1]


def set_bits(marks: Bytes8, k: int) -> Ints:
    """Positions, increasing, of the `k` lowest bits that are set; of each byte the least significant comes first.

    Args:
        marks: Contiguous, with k bits set or more.
        k: 0 or more.
    """
    found = np.empty(k, np.int64)
    _ends(marks, found)
    return found


def golomb_parameter(density: float) -> int:
    """The Golomb-Rice parameter for gaps between values kept with probability `density`, in (0, 1)."""
    golden = (1 + math.sqrt(5)) / 2
    return min(_LARGEST_PARAMETER, max(0, 1 + math.floor(math.log2(math.log(golden - 1) / math.log1p(-density)))))


def _golomb_length(gaps: Codes, bits: int) -> int:
    return packed_length(gaps.size, bits) + (int(_quotients(gaps, bits)) + gaps.size + 7) // 8


def _best_golomb(gaps: Codes, density: float) -> tuple[int, int]:
    """(bytes, parameter) of the shortest Golomb-Rice code near the optimum for independent positions."""
    best = golomb_parameter(density)
    length = _golomb_length(gaps, best)
    for step in (-1, 1):
        while 0 <= best + step <= _LARGEST_PARAMETER and (other := _golomb_length(gaps, best + step)) < length:
            best, length = best + step, other
    return length, best


def write(indices: Ints, n: int, sink: Sink) -> None:
    """Write `indices`, shape (k,), strictly increasing, in [0, n), n <= 2**32, to the section of that name."""
    k = indices.size
    if k == n:
        return
    gaps = _gaps(indices)
    width = (n - 1).bit_length()
    length, bits = _best_golomb(gaps, k / n)
    choices = ((packed_length(n, 1), _BITMAP), (length, _GOLOMB + bits), (packed_length(k, width), _RAW))
    mode = min(choices, key=lambda choice: choice[0])[1]
    sink.write("indices", bytes([mode]))
    if mode == _BITMAP:
        sink.write("indices", _parted(gaps, 0, packed_length(n, 1))[1])
    elif mode == _RAW:
        sink.write("indices", pack(indices.astype(np.uint32), width))
    else:
        rest, quotients = _parted(gaps, bits, length - packed_length(k, bits))
        sink.write("indices", pack(rest, bits))
        sink.write("indices", quotients)


def read(k: int, n: int, source: Source) -> Ints:
    """The inverse of `write`.

    Args:
        k: How many, 1 to n.
        n: Of how many, up to 2**32.
        source: The frame.

    Raises:
        FrameError: ``indices`` when they are not k increasing numbers below n, or ``truncated``.
    """
    if k == n:
        return np.arange(n)
    mode = source.byte()
    if mode == _BITMAP:
        indices = _read_bitmap(k, n, source)
    elif mode == _RAW:
        width = (n - 1).bit_length()
        indices = unpack(source.array(packed_length(k, width)), k, width).astype(np.int64)
        if indices[-1] >= n or not _rising(indices):
            raise _wrong(k, n)
    elif mode <= _GOLOMB + _LARGEST_PARAMETER:
        indices = _read_golomb(k, n, mode - _GOLOMB, source)
    else:
        raise FrameError("indices", f"indices are coded in way {mode}; there are 0 to {_GOLOMB + _LARGEST_PARAMETER}")
    return indices


def _wrong(k: int, n: int) -> FrameError:
    return FrameError("indices", f"the indices are not {k} increasing numbers below {n}")


def _read_bitmap(k: int, n: int, source: Source) -> Ints:
    found = np.empty(k + 1, np.int64)
    if _ends(np.frombuffer(source.take(packed_length(n, 1)), np.uint8), found) != k or found[k - 1] >= n:
        raise _wrong(k, n)
    return found[:k]


def _read_golomb(k: int, n: int, bits: int, source: Source) -> Ints:
    rest = unpack(source.array(packed_length(k, bits)), k, bits)
    data = source.peek()
    if k > 8 * data.size:
        raise FrameError("truncated", f"the gaps of {k} kept values end early")
    ends = np.empty(k, np.int64)
    if _ends(data, ends) < k:
        raise FrameError("truncated", f"the gaps of {k} kept values end early")
    end = int(ends[-1])
    if int(source.take(end // 8 + 1)[-1]) >> (end % 8 + 1):
        raise FrameError("indices", "bits are set behind the last gap")
    if not _joined(ends, rest, bits, n):
        raise _wrong(k, n)
    return ends
