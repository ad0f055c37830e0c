"""Prefix codes of integers, and streams of them: Elias gamma and omega, and Rice's code with a bounded unary part.

They code an integer x of 0 or more, in one little-endian stream of bits, the first bit lowest:

* gamma (Elias 1975, "Universal codeword sets and representations of the integers"): with v = x + 1 and t =
  floor(log2 v), t clear bits, a set one, and the t lower bits of v;
* omega (likewise): groups, each a set bit and the t lower bits of a number, t being the number in the group before,
  the first of which is 1, and the last v; then a clear bit;
* Rice: with q = x >> remainder, q set bits, a clear one, and the lower `remainder` bits of x. From `limit` on q is
  cut: `limit` set bits, and x - (limit << remainder) in `wide` bits. Golomb 1966 with a power of two as parameter; no
  unary part is longer than `limit`, and with limit 0 codes are just packed.

Elias writes the lower bits of a number most significant first, these least significant first; lengths are his.

A plane's codes are mapped to such integers about its zero by an `Alphabet`. The kernels have plain twins in
`tightwire.wire.universal_twins`, equal bit for bit.
"""

from functools import lru_cache
from typing import NamedTuple

import numba
import numpy as np
import numpy.typing as npt

from tightwire.arrays import Bytes8, Ints
from tightwire.errors import FrameError
from tightwire.wire.packing import Codes
from tightwire.wire.words import ones64

Words = npt.NDArray[np.uint64]
"""A stream of bits, or codewords: bits from bit 6 on, their number in the lower six; shape (m,)."""

GAMMA, OMEGA, RICE = range(3)

MAX_BITS = 16
"""Codes of more bits have no tables here."""
WINDOW = 11
"""Bits that a lookup sees at once."""
BURST = 4
"""Codes that it finds at most."""
NONE = np.uint64(63)
"""The codeword of what has none."""
_LOOKUPS = 4
_AHEAD = 4
"""Words that may be read behind the last bit."""
_LONGEST = 31
"""Largest t of an Elias code: nobody codes numbers of more than 32 bits."""


class Code(NamedTuple):
    """Which code; the rest is Rice's."""

    kind: int
    remainder: int = 0
    limit: int = 0
    wide: int = 0


class Alphabet(NamedTuple):
    """How codes 0 to `top` stand for integers.

    Elias codes take the distance to `zero`, less `first`, and behind it, unless the distance is 0 or `zero` is, a bit
    that is set for codes below. The Rice code takes the rank by that distance, less `first`: 0, 1 above, 1 below, 2
    above and so on, and when one side is at its end the other goes on alone.
    """

    zero: int
    top: int
    first: int
    """1 where the code `zero` does not occur, else 0."""


@numba.njit(cache=True, nogil=True, inline="always")
def window(words, at):  # type: ignore[no-untyped-def]  # numba infers the types
    """The 64 bits from bit `at` on."""
    word, shift = at >> np.uint64(6), at & np.uint64(63)
    return (words[word] >> shift) | ((words[word + np.uint64(1)] << np.uint64(1)) << (np.uint64(63) - shift))


@numba.njit(cache=True, nogil=True)
def log2(value):  # type: ignore[no-untyped-def]  # numba infers the types
    """Floor of the logarithm of a uint64 of 1 or more."""
    for shift in (1, 2, 4, 8, 16, 32):
        value |= value >> np.uint64(shift)
    return ones64(value) - np.uint64(1)


@numba.njit(cache=True, nogil=True)
def codeword(code, x):  # type: ignore[no-untyped-def]  # numba infers the types
    """(bits, their number) of the integer `x`, a uint64; the number is 63 where it has none."""
    one = np.uint64(1)
    if code.kind == RICE:
        remainder, limit, wide = np.uint64(code.remainder), np.uint64(code.limit), np.uint64(code.wide)
        quotient = x >> remainder
        if quotient < limit:
            low = x & ((one << remainder) - one)
            return ((one << quotient) - one) | (low << (quotient + one)), quotient + one + remainder
        rest = x - (limit << remainder)
        if rest >> wide:
            return np.uint64(0), np.uint64(63)
        return ((one << limit) - one) | (rest << limit), limit + wide
    value = x + one
    if code.kind == GAMMA:
        size = log2(value)
        return (one << size) | ((value ^ (one << size)) << (size + one)), size + size + one
    word, length = np.uint64(0), one
    while value > one:
        size = log2(value)
        word = one | ((value ^ (one << size)) << one) | (word << (size + one))
        length += size + one
        value = size
    return word, length


@numba.njit(cache=True, nogil=True)
def take(code, view):  # type: ignore[no-untyped-def]  # numba infers the types
    """(integer, bits used) of the codeword at the start of `view`, a uint64; (-1, 0) where there is none."""
    one = np.uint64(1)
    if code.kind == RICE:
        remainder, limit, wide = np.uint64(code.remainder), np.uint64(code.limit), np.uint64(code.wide)
        quotient = ones64(view & ~(view + one))
        if quotient < limit:
            low = (view >> (quotient + one)) & ((one << remainder) - one)
            return np.int64((quotient << remainder) | low), quotient + one + remainder
        return np.int64((limit << remainder) + ((view >> limit) & ((one << wide) - one))), limit + wide
    if code.kind == GAMMA:
        size = ones64(~view & (view - one))
        if size > _LONGEST:
            return np.int64(-1), np.uint64(0)
        low = (view >> (size + one)) & ((one << size) - one)
        return np.int64(((one << size) | low) - one), size + size + one
    value, length = one, one
    while view & one:
        if value > _LONGEST:
            return np.int64(-1), np.uint64(0)
        size = value
        value = (one << size) | ((view >> one) & ((one << size) - one))
        view >>= size + one
        length += size + one
    return np.int64(value - one), length


@numba.njit(cache=True, nogil=True)
def take_code(code, alphabet, view):  # type: ignore[no-untyped-def]  # numba infers the types
    """(code, bits used) at the start of `view`; (-1, 0) where there is none."""
    zero, top = np.int64(alphabet.zero), np.int64(alphabet.top)
    x, used = take(code, view)
    if x < 0:
        return np.int64(-1), np.uint64(0)
    x += alphabet.first
    found = zero + x
    if code.kind == RICE:
        side = min(zero, top - zero)
        found = zero + ((x + 1) >> 1 if x & 1 else -(x >> 1))
        if x > 2 * side:
            found = x if zero == side else top - x
    elif x and zero:
        if (view >> used) & np.uint64(1):
            found = zero - x
        used += np.uint64(1)
    if found < 0 or found > top:
        return np.int64(-1), np.uint64(0)
    return found, used


@numba.njit(cache=True, nogil=True)
def _codewords(code, integers, signs, out):  # type: ignore[no-untyped-def]  # numba infers the types
    for at in range(out.size):
        if integers[at] < 0:
            out[at] = NONE
            continue
        word, length = codeword(code, np.uint64(integers[at]))
        if signs[at]:
            word |= np.uint64(signs[at] < 0) << length
            length += np.uint64(1)
        out[at] = (word << np.uint64(6)) | length


@numba.njit(cache=True, nogil=True)
def _lookup(entries, symbols, info):  # type: ignore[no-untyped-def]  # numba infers the types
    size = np.uint64(1 << WINDOW)
    whose = np.zeros(size, np.uint32)
    lengths = np.full(size, 255, np.uint32)
    for at in range(entries.size):
        length = entries[at] & np.uint64(63)
        if length <= np.uint64(WINDOW):
            view = entries[at] >> np.uint64(6)
            while view < size:
                whose[view], lengths[view] = at, length
                view += np.uint64(1) << length
    for start in range(size):
        view, used, count = start, np.int64(0), np.int64(0)
        while count < BURST and used + lengths[view] <= WINDOW:
            symbols[start * BURST + count] = whose[view]
            count += 1
            used += lengths[view]
            view >>= lengths[view]
        info[start] = np.uint32(count << 16 | used << 8 | min(lengths[start], np.uint32(WINDOW)))


def integers(kind: int, alphabet: Alphabet) -> Ints:
    """The integer for each of the alphabet's codes, shape (top + 1,); -1 for one that does not occur."""
    zero, top, first = alphabet
    codes = np.arange(top + 1)
    distance = codes - zero
    if kind != RICE:
        return abs(distance) - first
    side = min(zero, top - zero)
    beyond = codes if zero == side else top - codes
    return np.where(abs(distance) > side, beyond, 2 * abs(distance) - (distance > 0)) - first


@lru_cache(maxsize=16)
def codewords(code: Code, alphabet: Alphabet) -> Words:
    """The codewords of all codes of the alphabet, shape (top + 1,)."""
    distance = np.arange(alphabet.top + 1) - alphabet.zero
    signs = np.sign(distance) if code.kind != RICE and alphabet.zero else np.zeros_like(distance)
    out = np.empty(alphabet.top + 1, np.uint64)
    _codewords(code, integers(code.kind, alphabet), signs, out)
    return out


def lengths(code: Code, alphabet: Alphabet) -> Ints:
    """Bits of each code, shape (top + 1,)."""
    return (codewords(code, alphabet) & np.uint64(63)).astype(np.int64)


@lru_cache(maxsize=16)
def lookup(code: Code, alphabet: Alphabet) -> tuple[Codes, Codes]:
    """For each of the 2**WINDOW ways in which a stream may go on, the codes that it surely holds.

    Returns:
        The codes, `BURST` for each; and for each their number << 16 | the bits of all << 8 | the bits of the first.
    """
    symbols, info = np.zeros(BURST << WINDOW, np.uint32), np.empty(1 << WINDOW, np.uint32)
    _lookup(codewords(code, alphabet), symbols, info)
    return symbols, info


def blank(bits: int) -> Words:
    """Unset memory for a stream of `bits` bits."""
    return np.empty(bits // 64 + 2, np.uint64)


def finished(words: Words, bits: int) -> Bytes8:
    """The bytes of a stream of `bits` bits."""
    return words.view(np.uint8)[: (bits + 7) // 8]


def opened(data: Bytes8) -> Words:
    """A stream to read, clear bits behind its end."""
    words = np.zeros(data.size // 8 + 1 + _AHEAD, np.uint64)
    words.view(np.uint8)[: data.size] = data
    return words


def ended(data: Bytes8, bits: int) -> bool:
    """Whether the `bits` bits that were read are all of a stream, up to clear ones that fill its last byte."""
    return data.size == (bits + 7) // 8 and (bits % 8 == 0 or not int(data[-1]) >> bits % 8)


@numba.njit(cache=True, nogil=True, inline="always")
def put(words, at, pending, filled, word, length):  # type: ignore[no-untyped-def]  # numba infers the types
    """Append a codeword of up to 63 bits; (whole words, bits pending, their number) afterwards."""
    pending |= word << filled
    filled += length
    if filled >= np.uint64(64):
        words[at] = pending
        at += np.uint64(1)
        filled -= np.uint64(64)
        pending = word >> (length - filled)
    return at, pending, filled


@numba.njit(cache=True, nogil=True)
def _write(codes, entries, words):  # type: ignore[no-untyped-def]  # numba infers the types
    at, pending, filled = np.uint64(0), np.uint64(0), np.uint64(0)
    for code in codes:
        entry = entries[code]
        at, pending, filled = put(words, at, pending, filled, entry >> np.uint64(6), entry & np.uint64(63))
    words[at] = pending


@numba.njit(cache=True, nogil=True)
def _write_pairs(codes, entries, words):  # type: ignore[no-untyped-def]  # numba infers the types
    """As `_write`, for codewords of at most 31 bits."""
    at, pending, filled = np.uint64(0), np.uint64(0), np.uint64(0)
    six, low = np.uint64(6), np.uint64(63)
    for i in range(0, codes.size - 1, 2):
        left, right = entries[codes[i]], entries[codes[i + 1]]
        word = (left >> six) | ((right >> six) << (left & low))
        at, pending, filled = put(words, at, pending, filled, word, (left & low) + (right & low))
    if codes.size & 1:
        entry = entries[codes[-1]]
        at, pending, filled = put(words, at, pending, filled, entry >> six, entry & low)
    words[at] = pending


@numba.njit(cache=True, nogil=True)
def _read(words, end, code, alphabet, symbols, info, out, n):  # type: ignore[no-untyped-def]  # numba infers the types
    """Fill out[:n]; the bits used, or -1 where a codeword is impossible. `out` has room for `BURST` more."""
    at, end, i = np.uint64(0), np.uint64(end), np.uint64(0)
    n = np.uint64(n)
    mask = np.uint64((1 << WINDOW) - 1)
    while i + np.uint64(BURST * _LOOKUPS) <= n and at <= end:
        view = window(words, at)
        for _ in range(_LOOKUPS):
            key = view & mask
            entry = np.uint64(info[key])
            burst = symbols[key * np.uint64(BURST) : key * np.uint64(BURST) + np.uint64(BURST)]
            part = out[i : i + np.uint64(BURST)]
            for k in range(BURST):
                part[k] = burst[k]
            used = (entry >> np.uint64(8)) & np.uint64(255)
            i += entry >> np.uint64(16)
            at += used
            view >>= used
        if not entry >> np.uint64(16):
            found, used = take_code(code, alphabet, window(words, at))
            if found < 0:
                return -1
            out[i] = found
            i += np.uint64(1)
            at += used
    while i < n and at <= end:
        found, used = take_code(code, alphabet, window(words, at))
        if found < 0:
            return -1
        out[i] = found
        i += np.uint64(1)
        at += used
    return np.int64(at) if i == n else -1


def write(codes: Codes, code: Code, alphabet: Alphabet, bits: int) -> Bytes8:
    """The codewords of all `codes`, shape (n,), one after another; `bits` bits, as their lengths add up to."""
    entries = codewords(code, alphabet)
    words = blank(bits)
    longest = int((entries[entries != NONE] & NONE).max())
    (_write_pairs if longest < 32 else _write)(codes, entries, words)
    return finished(words, bits)


def read(data: Bytes8, n: int, code: Code, alphabet: Alphabet) -> Codes:
    """The inverse of `write`: `n` codes from all of `data`.

    Raises:
        FrameError: ``codes`` where that is no such stream.
    """
    out = np.empty(n + BURST, np.uint32)
    bits = _read(opened(data), data.size * 8, code, alphabet, *lookup(code, alphabet), out, n)
    if bits < 0 or not ended(data, bits):
        raise FrameError("codes", f"{data.size} coded bytes are not {n} codewords and what ends them")
    return out[:n]
