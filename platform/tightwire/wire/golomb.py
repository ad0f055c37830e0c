"""Golomb-Rice coding of integers, with the best parameters that there are for them.

The code is `tightwire.wire.prefix.RICE`: Golomb 1966 with powers of two (Rice and Plaunt 1971), its unary part cut at a
limit, so that what is far out costs its plain bits. All parameters are tried on the histogram; sizes are exact.

Codes of a plane are coded by their rank about a centre, which is on the wire as it need not be the quantiser's zero.
On the wire a code of integers is two bytes: remainder | wide << 5 | limit << 10, or `_ELIAS` for gamma.
"""

import struct
from collections.abc import Iterator

import numba
import numpy as np

from tightwire.arrays import Ints
from tightwire.errors import FrameError
from tightwire.wire import modes, prefix
from tightwire.wire.forms import Form, Reading, Values
from tightwire.wire.prefix import GAMMA, RICE, Alphabet, Code
from tightwire.wire.streams import Source, varint

MAX_LIMIT = 24
"""Longest unary part."""
_ELIAS = 1 << 15
_CODE = struct.Struct("<H")


@numba.njit(cache=True, nogil=True)
def _best(tail, shift, largest, limits):  # type: ignore[no-untyped-def]  # numba infers the types
    """(remainder, limit, wide, bits); `tail[x]` is how many integers are at least x << shift."""
    least, chosen = np.int64(1) << 62, (0, 0, 0)
    steps = 0
    while tail.size - 1 >> steps:
        steps += 1
    for step in range(steps + 1):
        remainder, unary = step + shift, np.int64(0)
        for limit in range(limits + 1):
            above = tail[limit << step] if limit << step < tail.size else np.int64(0)
            unary += above if limit else 0
            wide = 0
            if above:
                while largest - (limit << remainder) >> wide:
                    wide += 1
            bits = unary + (tail[0] - above) * (1 + remainder) + above * wide
            if bits < least:
                least, chosen = bits, (remainder, limit, wide)
            if above == 0:
                break
    return chosen[0], chosen[1], chosen[2], least


def best(counts: Ints, shift: int = 0) -> tuple[Code, int]:
    """The code with the fewest bits for integers with these counts, and these bits.

    Args:
        counts: How many integers are x << shift or above, and below (x + 1) << shift; shape (m,).
        shift: With more than 0, no fewer bits are left as they are.
    """
    present = np.flatnonzero(counts)
    if present.size == 0:
        return Code(RICE), 0
    tail = np.ascontiguousarray(counts[: present[-1] + 1][::-1].cumsum()[::-1])
    largest = ((int(present[-1]) + 1) << shift) - 1
    remainder, limit, wide, bits = _best(tail, shift, largest, MAX_LIMIT)
    return Code(RICE, remainder, limit, wide), bits


def pack(code: Code) -> bytes:
    """Two bytes for a code."""
    if code.kind == GAMMA:
        return _CODE.pack(_ELIAS)
    return _CODE.pack(code.remainder | code.wide << 5 | code.limit << 10)


def read_code(source: Source) -> Code:
    """The inverse of `pack`.

    Raises:
        FrameError: ``tables`` for what is no code, or ``truncated``.
    """
    (word,) = _CODE.unpack(source.take(_CODE.size))
    if word == _ELIAS:
        return Code(GAMMA)
    code = Code(RICE, word & 31, word >> 10, word >> 5 & 31)
    if code.limit > MAX_LIMIT:
        raise FrameError("tables", f"a unary part is at most {MAX_LIMIT} long, got {code.limit}")
    return code


def ranked(values: Values, alphabet: Alphabet) -> Ints:
    """How many codes have each rank about the alphabet's zero, shape (top + 1,)."""
    ranks = prefix.integers(RICE, alphabet)
    counts = np.zeros(values.top + 1, np.int64)
    counts[ranks[ranks >= 0]] = values.counts[ranks >= 0]
    return counts


def _centred(values: Values, centre: int) -> Form:
    alphabet = Alphabet(centre, values.top, 0)
    code, bits = best(ranked(values, alphabet))
    head = bytes([modes.GOLOMB]) + varint(centre) + pack(code)
    return Form(head, bits, lambda: prefix.write(values.codes, code, alphabet, bits))


def forms(values: Values) -> Iterator[Form]:
    """Ranks about the code for zero, the most frequent one, and the median."""
    median = int(np.searchsorted(values.counts.cumsum(), values.codes.size / 2))
    for centre in sorted({values.zero, int(values.counts.argmax()), median}):
        yield _centred(values, centre)


def read_base(top: int, source: Source) -> int:
    """A code of 0 to `top`.

    Raises:
        FrameError: ``tables`` when it is another, or ``truncated``.
    """
    base = source.varint()
    if base > top:
        raise FrameError("tables", f"code {base} is told to be frequent, but codes go to {top}")
    return base


def read(n: int, top: int, source: Source) -> Reading:
    """What comes behind the first byte of `forms`, for `n` codes up to `top`.

    Raises:
        FrameError: ``tables`` or ``length`` for what cannot be, or ``truncated``.
    """
    alphabet = Alphabet(read_base(top, source), top, 0)
    code = read_code(source)
    if code.kind != RICE:
        raise FrameError("tables", "codes are written in another code than Rice's")
    return Reading(source.varint(), lambda data: prefix.read(data, n, code, alphabet))
