"""Plain twins of the compiled loops of the prefix codes, on strings of bits; slow, obvious, and equal bit for bit."""

from collections.abc import Iterator

import numpy as np

from tightwire.arrays import Bytes8, Ints
from tightwire.wire.packing import Codes
from tightwire.wire.prefix import GAMMA, RICE, Alphabet, Code

_LONGEST = 31


def _lower(value: int, size: int) -> str:
    """The `size` lower bits of a value, the least significant first."""
    return "".join(str(value >> bit & 1) for bit in range(size))


def codeword(code: Code, x: int) -> str | None:
    """The twin of `tightwire.wire.prefix.codeword`."""
    if code.kind == RICE:
        if x >> code.remainder < code.limit:
            return "1" * (x >> code.remainder) + "0" + _lower(x, code.remainder)
        rest = x - (code.limit << code.remainder)
        return None if rest >> code.wide else "1" * code.limit + _lower(rest, code.wide)
    value = x + 1
    size = value.bit_length() - 1
    if code.kind == GAMMA:
        return "0" * size + "1" + _lower(value, size)
    bits = "0"
    while value > 1:
        size = value.bit_length() - 1
        bits = "1" + _lower(value, size) + bits
        value = size
    return bits


def ranked(alphabet: Alphabet) -> list[int]:
    """The alphabet's codes by distance from its zero, those above before those below."""
    codes = sorted(range(alphabet.top + 1), key=lambda code: (abs(code - alphabet.zero), code < alphabet.zero))
    return codes[alphabet.first :]


def of_code(code: Code, alphabet: Alphabet, value: int) -> str | None:
    """The codeword of one of an alphabet's codes, with its sign bit."""
    distance = value - alphabet.zero
    if alphabet.first and not distance:
        return None
    if code.kind == RICE:
        return codeword(code, ranked(alphabet).index(value))
    sign = str(int(distance < 0)) if distance and alphabet.zero else ""
    bits = codeword(code, abs(distance) - alphabet.first)
    return None if bits is None else bits + sign


def _bytes(bits: str) -> Bytes8:
    return np.packbits(np.array(list(bits), np.uint8), bitorder="little")


def write(codes: Codes, code: Code, alphabet: Alphabet) -> Bytes8:
    """The twin of `tightwire.wire.prefix.write`."""
    return _bytes("".join(of_code(code, alphabet, value) or "" for value in codes.tolist()))


def write_runs(runs: Codes, codes: Codes, run_code: Code, code: Code, alphabet: Alphabet) -> Bytes8:
    """The twin of `tightwire.wire.runs.write`."""
    pairs = zip(runs.tolist(), codes.tolist(), strict=True)
    return _bytes(
        "".join((codeword(run_code, run) or "") + (of_code(code, alphabet, value) or "") for run, value in pairs)
    )


class _NoCodewordError(Exception):
    """The bits are no codeword."""


def _number(bits: Iterator[str], size: int) -> int:
    value = 0
    for at in range(size):
        value |= int(next(bits)) << at
    return value


def _take(code: Code, bits: Iterator[str]) -> int:
    if code.kind == RICE:
        quotient = 0
        while quotient < code.limit and next(bits) == "1":
            quotient += 1
        size = code.remainder if quotient < code.limit else code.wide
        return (quotient << code.remainder) + _number(bits, size)
    if code.kind == GAMMA:
        size = 0
        while next(bits) == "0":
            size += 1
        if size > _LONGEST:
            raise _NoCodewordError
        return (1 << size | _number(bits, size)) - 1
    value = 1
    while next(bits) == "1":
        if value > _LONGEST:
            raise _NoCodewordError
        value = 1 << value | _number(bits, value)
    return value - 1


def _take_code(code: Code, alphabet: Alphabet, bits: Iterator[str]) -> int:
    x = _take(code, bits)
    if code.kind == RICE:
        codes = ranked(alphabet)
        if x >= len(codes):
            raise _NoCodewordError
        return codes[x]
    x += alphabet.first
    if x and alphabet.zero and next(bits) == "1":
        x = -x
    if not 0 <= alphabet.zero + x <= alphabet.top:
        raise _NoCodewordError
    return alphabet.zero + x


def _bits(data: Bytes8) -> Iterator[str]:
    return iter("".join(np.unpackbits(data, bitorder="little").astype(str)))


def _over(bits: Iterator[str]) -> bool:
    """Whether only clear bits are left, fewer than a byte."""
    rest = list(bits)
    return len(rest) < 8 and "1" not in rest


def read(data: Bytes8, n: int, code: Code, alphabet: Alphabet) -> list[int] | None:
    """The twin of `tightwire.wire.prefix.read`; None for what it refuses."""
    bits = _bits(data)
    try:
        codes = [_take_code(code, alphabet, bits) for _ in range(n)]
    except (_NoCodewordError, StopIteration):
        return None
    return codes if _over(bits) else None


def read_runs(data: Bytes8, n: int, k: int, run_code: Code, code: Code, alphabet: Alphabet) -> list[int] | None:
    """The twin of `tightwire.wire.runs.read_stream`; None for what it refuses."""
    bits = _bits(data)
    codes = [alphabet.zero] * n
    place = -1
    try:
        for _ in range(k):
            place += _take(run_code, bits) + 1
            found = _take_code(code, alphabet, bits)
            if place >= n:
                return None
            codes[place] = found
    except (_NoCodewordError, StopIteration):
        return None
    return codes if _over(bits) else None


def others(codes: Codes, base: int) -> tuple[Ints, Codes]:
    """The twin of `tightwire.wire.forms.Values.others`: (runs, codes)."""
    places = np.flatnonzero(codes != base)
    return np.diff(places, prepend=-1) - 1, codes[places]


def best(integers: Ints, largest: int, limits: int) -> int:
    """The bits that the code needs which `tightwire.wire.golomb.best` finds, by trying every one."""
    if integers.size == 0:
        return 0
    sizes = []
    for remainder in range(largest.bit_length() + 1):
        for limit in range(limits + 1):
            quotients = integers >> remainder
            wide = max(0, largest - (limit << remainder)).bit_length() if (quotients >= limit).any() else 0
            cost = np.where(quotients < limit, quotients + 1 + remainder, limit + wide)
            sizes.append(int(cost.sum()))
    return min(sizes)
