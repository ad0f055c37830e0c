"""The loops of the entropy coder, compiled by numba; `tightwire.wire.rans_twins` holds the same plainly, equal in bits.

rANS (Duda 2013, arXiv 1311.2540, section 3) with states of 32 bits that give off words of 16, in lanes (Giesen 2014,
"Interleaved entropy coders", arXiv 1402.3392): code i belongs to lane i % lanes, all lanes share one stream of words.
A state x in [2**16, 2**32) takes a code with share f of 2**precision, preceded by shares that sum to c, of which the
largest is the first, as

    x -> (x // f << precision) + x % f + c

after it gave off its low word if x >= f << 32 - precision - group; then the `group` low bits of the code, which the
model does not look at, are shifted in. Codes go in from last to first and come out from first to last.

Looking up tables and moving words is left to scalar loops, all arithmetic between runs over a row of lanes in SIMD
registers: the quotient is a product with the reciprocal, and a word is always moved, but counts only where due.
A single lane starts from 0, where the code with the largest share leaves it, and its words end where it does. Several
lanes start from 2**16 plus any 16 bits.
"""

from typing import Any

import numba
import numpy as np
from numba import types
from numba.extending import intrinsic

from tightwire.arrays import AnyArray
from tightwire.wire.packing import LANES, ROWS, get_row, get_tail, split
from tightwire.wire.words import add32, mul32, shl32, shr32

LEAST = 1 << 16
"""The smallest state that need not take in a word."""
WIDEST = 64
"""Most lanes."""


@intrinsic
def _zeros32(typingctx, word):  # type: ignore[no-untyped-def]  # noqa: ARG001 - numba's interface
    def codegen(context, builder, signature, arguments):  # type: ignore[no-untyped-def]  # noqa: ARG001 - as above
        return builder.ctlz(arguments[0], context.get_constant(types.boolean, False))

    return types.uint32(types.uint32), codegen


zeros32: Any = _zeros32  # its first argument is numba's, which mypy cannot know
"""How many of the highest bits of a uint32 are clear."""


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


def unpack(data: AnyArray, n: int, bits: int) -> AnyArray:
    """`tightwire.wire.packing.unpack` for at most 16 bits, to the smallest integers that hold them."""
    codes: AnyArray = np.empty(n, np.uint8 if bits <= 8 else np.uint16)
    _unpack(*split(data, n, bits), bits, codes)
    return codes


@numba.njit(cache=True, nogil=True)
def count(codes, counts):  # type: ignore[no-untyped-def]  # numba infers the types
    """Add to each column of `counts`, shape (4, symbols), how often its code occurs in a quarter of `codes`."""
    c0, c1, c2, c3 = counts[0], counts[1], counts[2], counts[3]
    fourths = codes.size // 4
    for i in range(fourths):
        c0[codes[4 * i]] += 1
        c1[codes[4 * i + 1]] += 1
        c2[codes[4 * i + 2]] += 1
        c3[codes[4 * i + 3]] += 1
    for i in range(4 * fourths, codes.size):
        c0[codes[i]] += 1


@numba.njit(cache=True, nogil=True)
def tables(shares, encoding, symbols, decoding):  # type: ignore[no-untyped-def]  # numba infers the types
    """Tables of a model whose `shares` sum to a power of two.

    Args:
        shares: Shape (symbols,), integers.
        encoding: Takes, of each symbol, reciprocal << 32 | share << 16 | sum of the shares before it, of
            which the largest is the first; or is empty.
        symbols: Takes the symbol of each slot, shape (sum of the shares,); or is empty.
        decoding: Takes share << 16 | sum of the shares before it; or is empty.
    """
    largest = 0
    for symbol in range(shares.size):
        if shares[symbol] > shares[largest]:
            largest = symbol
    before = np.int64(shares[largest])
    for symbol in range(shares.size):
        share = np.int64(shares[symbol])
        if share:
            start = np.int64(0) if symbol == largest else before
            before += np.int64(0) if symbol == largest else share
            if encoding.size:
                shift = 0
                while np.int64(1) << shift < share:
                    shift += 1
                power = np.uint64(1) << np.uint64(32 + shift)
                reciprocal = (power + np.uint64(share - 1)) // np.uint64(share) - (np.uint64(1) << np.uint64(32))
                encoding[symbol] = reciprocal << np.uint64(32) | np.uint64(share << 16 | start)
            if symbols.size:
                symbols[start : start + share] = symbol
                decoding[symbol] = np.uint32(share << 16 | start)


@numba.njit(cache=True, nogil=True, inline="always")
def _put(x, entry, code, precision, group):  # type: ignore[no-untyped-def]  # numba infers the types
    """The state `x`, low enough, with one more code."""
    low_half = np.uint32(entry)
    share = shr32(low_half, np.uint32(16))
    shift = np.uint64(np.uint32(32) - zeros32(share - np.uint32(1)))
    wide = np.uint64(x)
    quotient = np.uint32((((wide * (entry >> np.uint64(32))) >> np.uint64(32)) + wide) >> shift)
    rest = shl32(np.uint32(1), precision) - share
    put = add32(add32(x, low_half & np.uint32(0xFFFF)), mul32(quotient, rest))
    return shl32(put, group) | (np.uint32(code) & (shl32(np.uint32(1), group) - np.uint32(1)))


@numba.njit(cache=True, nogil=True)
def push(codes, start, stop, table, precision, group, states, words, at):  # type: ignore[no-untyped-def]  # numba infers the types
    """Push codes[start:stop], last first, onto the states of several lanes.

    Args:
        codes: All codes, unsigned.
        start: Of a stretch of them.
        stop: Its end.
        table: `tables` of its model, for encoding.
        precision: Log2 of the sum of its shares.
        group: Low bits of a code that the model does not look at.
        states: Shape (lanes,), uint32.
        words: Takes what states give off, uint16, from its end to its begin.
        at: The words before this are free.

    Returns:
        The next `at`; -1 when `words` may not suffice.
    """
    lanes = states.size
    p, g = np.uint32(precision), np.uint32(group)
    up = np.uint32(32 - precision - group)
    entries = np.empty(lanes, np.uint64)
    lows = np.empty(lanes, np.uint16)
    dues = np.empty(lanes, np.uint8)
    one, room, free = np.uint64(1), np.uint64(lanes), np.uint64(at)  # unsigned: numba asks of no sign then
    row = (stop - 1) // lanes * lanes
    while row + lanes > start:
        if free <= room:
            return -1
        first, end = max(start, row), min(stop, row + lanes)
        part, own = codes[first:end], states[first - row : end - row]
        size = end - first
        for lane in range(size):
            entries[lane] = table[part[lane] >> g]
        for lane in range(size):
            x, entry = own[lane], entries[lane]
            due = shr32(x, up) >= shr32(np.uint32(entry), np.uint32(16))
            lows[lane] = np.uint16(x)
            dues[lane] = due
            own[lane] = _put(shr32(x, np.uint32(16)) if due else x, entry, part[lane], p, g)
        top = np.uint64(size - 1)
        for below in range(size):
            words[free - one] = lows[top - np.uint64(below)]
            free -= np.uint64(dues[top - np.uint64(below)])
        row -= lanes
    return np.int64(free)


@numba.njit(cache=True, nogil=True)
def pull(codes, start, stop, symbols, table, precision, group, states, words, at):  # type: ignore[no-untyped-def]  # numba infers the types
    """Pull codes[start:stop] from the states of several lanes: the inverse of `push`.

    Args:
        codes: Takes all codes.
        start: Of a stretch of them.
        stop: Its end.
        symbols: `tables` of its model, for decoding.
        table: Likewise.
        precision: As `push`.
        group: As `push`.
        states: As `push`.
        words: uint16.
        at: The next word.

    Returns:
        The next `at`; -1 when fewer than `lanes` words are left where a row of lanes begins.
    """
    lanes = states.size
    p, g = np.uint32(precision), np.uint32(group)
    mask = np.uint32((1 << precision) - 1)
    rest = np.uint32((1 << group) - 1)
    entries = np.empty(lanes, np.uint32)
    lows = np.empty(lanes, np.uint16)
    dues = np.empty(lanes, np.uint8)
    row = start // lanes * lanes
    if words.size < lanes:
        return -1
    next_word, last = np.uint64(at), np.uint64(words.size - lanes)  # unsigned, as in `push`
    while row < stop:
        if next_word > last:
            return -1
        first, end = max(start, row), min(stop, row + lanes)
        part, own = codes[first:end], states[first - row : end - row]
        size = end - first
        for lane in range(size):
            symbol = symbols[shr32(own[lane], g) & mask]
            part[lane] = symbol
            entries[lane] = table[symbol]
        for lane in range(size):
            x, entry = own[lane], entries[lane]
            part[lane] = shl32(np.uint32(part[lane]), g) | (x & rest)
            x = shr32(x, g)
            x = add32(mul32(shr32(entry, np.uint32(16)), shr32(x, p)), (x & mask) - (entry & np.uint32(0xFFFF)))
            dues[lane] = x < np.uint32(LEAST)
            own[lane] = x
        for lane in range(size):
            lows[lane] = words[next_word]
            next_word += np.uint64(dues[lane])
        for lane in range(size):
            x = own[lane]
            own[lane] = (shl32(x, np.uint32(16)) | lows[lane]) if x < np.uint32(LEAST) else x
        row += lanes
    return np.int64(next_word)


@numba.njit(cache=True, nogil=True)
def push_one(codes, start, stop, table, precision, group, states, words, at):  # type: ignore[no-untyped-def]  # numba infers the types
    """`push` for a single lane."""
    p, g = np.uint32(precision), np.uint32(group)
    up = np.uint32(32 - precision - group)
    x = states[0]
    for i in range(stop - 1, start - 1, -1):
        entry = table[codes[i] >> g]
        if shr32(x, up) >= shr32(np.uint32(entry), np.uint32(16)):
            if at == 0:
                return -1
            at -= 1
            words[at] = np.uint16(x)
            x = shr32(x, np.uint32(16))
        x = _put(x, entry, codes[i], p, g)
    states[0] = x
    return at


@numba.njit(cache=True, nogil=True)
def pull_one(codes, start, stop, symbols, table, precision, group, states, words, at):  # type: ignore[no-untyped-def]  # numba infers the types
    """`pull` for a single lane, whose words may end."""
    p, g = np.uint32(precision), np.uint32(group)
    mask = np.uint32((1 << precision) - 1)
    rest = np.uint32((1 << group) - 1)
    x = states[0]
    for i in range(start, stop):
        low = x & rest
        x = shr32(x, g)
        symbol = symbols[x & mask]
        entry = table[symbol]
        codes[i] = shl32(np.uint32(symbol), g) | low
        x = add32(mul32(shr32(entry, np.uint32(16)), shr32(x, p)), (x & mask) - (entry & np.uint32(0xFFFF)))
        if x < np.uint32(LEAST) and at < words.size:
            x = shl32(x, np.uint32(16)) | np.uint32(words[at])
            at += 1
    states[0] = x
    return at


@numba.njit(cache=True, nogil=True)
def fitting(codes, start, stop, costs, group, budget):  # type: ignore[no-untyped-def]  # numba infers the types
    """How many codes at the end of codes[start:stop] cost no more than `budget` together, costs being by symbol."""
    g = np.uint32(group)
    for i in range(stop - 1, start - 1, -1):
        budget -= costs[codes[i] >> g]
        if budget < 0:
            return stop - 1 - i
    return stop - start
