"""The hot loops of `tightwire.codecs.eden`; `tightwire.codecs.hadamard_twins` holds the same in plain NumPy.

A code is a magnitude's level, counted from 0, with the sign in its top bit. While they are made, codes take a byte.
"""

import math

import numba
import numpy as np

from tightwire.codecs import lloyd_max, sixteen
from tightwire.codecs.eden_vectors import (
    SUMS,
    code1,
    code2,
    code3,
    code4,
    code5,
    code6,
    fetch,
    levels_of_tile,
    squares,
    words1,
    words2,
    words4,
)
from tightwire.codecs.hadamard import rotate, start, unrotate
from tightwire.codecs.hadamard_vectors import BLOCK, TILE
from tightwire.codecs.sixteen import LANES
from tightwire.wire.packing import LANES as COLUMNS
from tightwire.wire.packing import ROWS, find_row, get_tail, put_tail
from tightwire.wire.words import shl32, shr32

CHUNK = ROWS * COLUMNS
"""Codes that are packed together."""
FOLD = np.uint32(0x7FFFFFFF)
"""All bits of a float32 but its sign."""
INFINITE = np.uint32(0x7F800000)
"""Infinity, as bits; those of NaNs are more."""
THOROUGH = np.bool_(True)
"""numba would compile `rotate` anew for a literal."""
LEAST, MOST = -126, 126
"""Powers of two that a block is scaled by, at most."""
_LEVELS = np.stack([np.resize(levels, 128) for levels in lloyd_max.LEVELS])
_LIMITS = np.stack([np.resize(np.append(lloyd_max.thresholds(bits), np.inf), 128) for bits in range(1, 9)])
_LIMITS = _LIMITS.astype(np.float32)
"""Behind the last threshold of a row comes infinity."""
_FINENESS = np.float32(64)
"""Cells of `_CELLS` for a unit: so many that no two thresholds of 8 bits are in one."""
_CELLS = np.stack([np.searchsorted(lloyd_max.thresholds(bits), np.arange(300) / _FINENESS) for bits in range(1, 9)])
_CELLS = _CELLS.astype(np.uint8)
"""Thresholds below each cell; the last is beyond all."""


@numba.njit(cache=True, nogil=True)
def _total(sums):  # type: ignore[no-untyped-def]  # numba infers the types
    """Their sum, in float32 until 16 are left; they are overwritten."""
    half = SUMS // 2
    while half >= LANES:
        for lane in range(half):
            sums[lane] += sums[half + lane]
        half //= 2
    total = np.float64(0)
    for lane in range(LANES):
        total += np.float64(sums[lane])
    return total


@numba.njit(cache=True, nogil=True)
def energy(values, factor, sums):  # type: ignore[no-untyped-def]  # numba infers the types
    """The sum of squares of up to 2**12 `values` times `factor`, in the order of `SUMS`."""
    if values.size == BLOCK:
        for lane in range(0, SUMS, LANES):
            squares(values, lane, factor, sums)
        return _total(sums)
    sums[:] = 0
    for first in range(0, values.size, SUMS):
        part = values[first : first + SUMS]
        for lane in range(part.size):
            value = part[lane] * factor
            sums[lane] += value * value
    return _total(sums)


@numba.njit(cache=True, nogil=True)
def quantise(values, factor, bits, codes, sums):  # type: ignore[no-untyped-def]  # numba infers the types
    """Codes of values times `factor`; returns the sum of the products of those with their levels, as `energy` sums.

    Up to 6 bits, 16 values at a time are compared with every threshold; else one by one, with the one in their cell.
    """
    sums[:] = 0
    whole = values.size // LANES * LANES if bits <= 6 else 0
    for at in range(0, whole, LANES):
        if bits == 1:
            code1(values, at, factor, codes, sums)
        elif bits == 2:
            code2(values, at, factor, codes, sums)
        elif bits == 3:
            code3(values, at, factor, codes, sums)
        elif bits == 4:
            code4(values, at, factor, codes, sums)
        elif bits == 5:
            code5(values, at, factor, codes, sums)
        else:
            code6(values, at, factor, codes, sums)
    levels, limits, cells = _LEVELS[bits - 1], _LIMITS[bits - 1], _CELLS[bits - 1]
    last = np.float32(cells.size - 1)
    sign = np.uint64(bits - 1)
    for at in range(whole, values.size):
        value = values[at] * factor
        size = abs(value)
        cell = size * _FINENESS
        rank = np.uint64(cells[np.uint64(np.int32(cell if cell < last else last))])  # noqa: FURB136 - numba's min minds NaNs
        rank += np.uint64(size >= limits[rank])
        codes[at] = rank | np.uint64(math.copysign(np.float32(1), value) < 0) << sign
        sums[at & SUMS - 1] += levels[rank] * size
    return _total(sums)


@numba.njit(cache=True, nogil=True)
def _weight(codes, bits):  # type: ignore[no-untyped-def]  # numba infers the types
    levels, mask = _LEVELS[bits - 1], (1 << bits - 1) - 1
    total = np.float64(0)
    for at in range(codes.size):
        level = np.float64(levels[codes[at] & mask])
        total += level * level
    return total


@numba.njit(cache=True, nogil=True)
def _exponent(values):  # type: ignore[no-untyped-def]  # numba infers the types
    top = np.uint32(0)
    for at in range(values.size):
        top = max(top, np.uint32(values[at] & FOLD))
    return top, min(max(np.int64(top >> 23) - 127, LEAST), MOST)


@numba.njit(cache=True, nogil=True)
def encode(values, edges, fine, bits, unbiased, k0, k1, words, tail, extras, scales):  # type: ignore[no-untyped-def]  # numba infers the types
    """Rotate and quantise block by block.

    Args:
        values: Shape (n,).
        edges: Of the blocks, shape (blocks + 1,).
        fine: Of each block, how many values come first with a bit more than the others, shape (blocks,).
        bits: Of the others, 0 to 8; 0 drops them.
        unbiased: Which scale.
        k0: Of the rotation's signs, as k1.
        k1: See there.
        words: Set to the packed codes, less the lowest bit of those with a bit more where `bits` is not 0.
        tail: Their end, as `tightwire.wire.packing.split` has it; zeros.
        extras: Set to those bits, a byte each.
        scales: Set to a scale for each block, float32, shape (blocks,).

    Returns:
        Whether all values are finite; if not, the rest is undefined.
    """
    buffer, chosen, sums = np.empty(BLOCK, np.float32), np.empty(BLOCK, np.float32), np.empty(SUMS, np.float32)
    waiting = np.empty(CHUNK + BLOCK, np.uint8)
    width, straight = max(bits, 1), _straight(edges, bits) if unbiased and not extras.size else 0
    done = held = more = 0
    for block in range(edges.size - 1):
        part, first = values[edges[block] : edges[block + 1]], fine[block]
        rotated = buffer[: part.size]
        norm, exponent = _rotated(part, block, k0, k1, rotated, sums)
        if norm < 0:
            return False
        if block < straight:
            offset, into, _ = find_row(words, done // CHUNK * CHUNK // ROWS * bits, done % CHUNK // SUMS, SUMS, bits)
            scales[block] = _encode_words(rotated, norm, exponent, bits, into, offset, sums, values[edges[block + 1] :])
            done += BLOCK
            continue
        here = waiting[held : held + (part.size if bits else first)]
        extra = extras[more : more + (first if bits else 0)]
        held += here.size
        more += extra.size
        if bits == 0:
            shift = start(part.size, block, k0, k1)
            for at in range(first):
                chosen[at] = rotated[(at + shift) % part.size]
        scales[block] = _encode_bytes(rotated, norm, exponent, chosen[:first], bits, unbiased, here, extra, sums)
        if held >= CHUNK:
            pack(waiting[:CHUNK], width, words[done // ROWS * width :], tail)
            held -= CHUNK
            done += CHUNK
            waiting[:held] = waiting[CHUNK : CHUNK + held]
    pack(waiting[:held], width, words[done // ROWS * width :], tail)
    return True


@numba.njit(cache=True, nogil=True)
def _straight(edges, bits):  # type: ignore[no-untyped-def]  # numba infers the types
    """How many blocks at the start are full and fill chunks, where codes of so many bits do not straddle words."""
    full = 0
    if bits == 1 or bits == 2 or bits == 4:
        while full < edges.size - 1 and edges[full + 1] - edges[full] == BLOCK:
            full += 1
    return full * BLOCK // CHUNK * CHUNK // BLOCK


@numba.njit(cache=True, nogil=True)
def _rotated(part, block, k0, k1, out, sums):  # type: ignore[no-untyped-def]  # numba infers the types
    """Rotate a block, divided by a power of two; its squared norm then, -1 if it is not finite, and the exponent."""
    top, exponent = _exponent(part.view(np.uint32))
    if top == 0 or top >= INFINITE:
        return 0.0 if top == 0 else -1.0, exponent
    unit = np.float32(math.ldexp(1.0, -exponent))
    norm = energy(part, unit, sums)
    rotate(part, out, unit, block, THOROUGH, k0, k1)
    return norm, exponent


@numba.njit(cache=True, nogil=True)
def _limited(scale, exponent):  # type: ignore[no-untyped-def]  # numba infers the types
    return min(math.ldexp(scale, exponent), np.float64(np.finfo(np.float32).max))


@numba.njit(cache=True, nogil=True)
def _encode_words(rotated, norm, exponent, bits, words, offset, sums, ahead):  # type: ignore[no-untyped-def]  # numba infers the types
    """Codes of a full block, from bit `offset` of the words on; its unbiased scale. `ahead` are values encoded next."""
    if norm == 0:
        if offset == 0:
            words[:] = 0
        return 0.0
    factor = np.float32(math.sqrt(BLOCK / norm))
    for lane in range(0, SUMS, LANES):
        if lane % (2 * LANES) == 0:
            fetch(ahead, lane // (2 * LANES) * TILE)
        if bits == 1:
            words1(rotated, lane, factor, words, offset, sums)
        elif bits == 2:
            words2(rotated, lane, factor, words, offset, sums)
        else:
            words4(rotated, lane, factor, words, offset, sums)
    product = _total(sums) / np.float64(factor)
    return _limited(norm / product, exponent) if product > 0 else 0.0


@numba.njit(cache=True, nogil=True)
def _encode_bytes(rotated, norm, exponent, chosen, bits, unbiased, codes, extra, sums):  # type: ignore[no-untyped-def]  # so
    """Codes of any block and, of as many at its start as there are chosen ones, extra bits; its scale.

    Of 0 bits, only the chosen ones are coded.
    """
    if norm == 0:
        codes[:] = 0
        extra[:] = 0
        return 0.0
    n, first, kept = rotated.size, chosen.size, norm
    factor = np.float32(math.sqrt(n / norm))
    if bits == 0:
        rotated = chosen
        kept = energy(rotated, np.float32(1.0), sums)
    product = weight = np.float64(0)
    if first:
        product += quantise(rotated[:first], factor, bits + 1, codes[:first], sums)
        if not unbiased:
            weight += _weight(codes[:first], bits + 1)
        for at in range(extra.size):
            extra[at] = codes[at] & 1
            codes[at] >>= 1
    if bits and first < n:
        product += quantise(rotated[first:], factor, bits, codes[first:], sums)
        if not unbiased:
            weight += _weight(codes[first:], bits)
    product /= np.float64(factor)
    if product <= 0:
        return 0.0
    return _limited(kept / product * (1.0 if bits else n / first) if unbiased else product / weight, exponent)


@numba.njit(cache=True, nogil=True)
def decode(words, tail, extras, edges, fine, bits, k0, k1, scales, out, weight, added):  # type: ignore[no-untyped-def]  # numba infers the types
    """The inverse of `encode`, whatever the codes are, to `out`, shape (n,); the scales are finite.

    With `added`, values times `weight` are added to what is there.
    """
    buffer, chunk = np.empty(BLOCK, np.float32), np.empty(CHUNK + BLOCK, np.uint8)
    table, finer = _table(bits), _table(bits + 1)
    width, total = max(bits, 1), edges[-1] if bits else fine.sum()
    straight = _straight(edges, bits) if sixteen.WIDE and not extras.size else 0
    done = begin = held = more = 0
    for block in range(edges.size - 1):
        into, first = out[edges[block] : edges[block + 1]], fine[block]
        part = buffer[: into.size]
        if block < straight:
            base, row = done // CHUNK * CHUNK // ROWS * bits, done % CHUNK // COLUMNS
            for at in range(0, BLOCK, TILE):
                offset, here, _ = find_row(words, base, row + at // COLUMNS, COLUMNS, bits)
                fetch(out, edges[block + 1] + at)
                levels_of_tile(here, offset, np.uint32(bits), _LEVELS[bits - 1], part, at)
            done += BLOCK
        else:
            taken = part.size if bits else first
            if held < taken:
                chunk[:held] = chunk[begin : begin + held]
                fresh = chunk[held : held + min(CHUNK, total - done)]
                unpack(words[done // ROWS * width :], tail, width, fresh)
                done += fresh.size
                held += fresh.size
                begin = 0
            here = chunk[begin : begin + taken]
            begin += taken
            held -= taken
            if bits == 0:
                part[:] = 0
                shift = start(part.size, block, k0, k1)
                for at in range(first):
                    part[(at + shift) % part.size] = finer[here[at]]
            else:
                for at in range(first):
                    part[at] = finer[here[at] << 1 | extras[more + at]]
                more += first
                for at in range(first, part.size):
                    part[at] = table[here[at]]
        begun = block < straight
        unrotate(part, np.float32(1.0), scales[block], block, THOROUGH, k0, k1, into, weight, added, begun)


@numba.njit(cache=True, nogil=True)
def _table(bits):  # type: ignore[no-untyped-def]  # numba infers the types
    table = np.zeros(1 << max(bits, 1), np.float32)
    if 1 <= bits <= 8:
        half = 1 << bits - 1
        for rank in range(half):
            table[rank], table[half + rank] = _LEVELS[bits - 1, rank], -_LEVELS[bits - 1, rank]
    return table


@numba.njit(cache=True, nogil=True)
def pack(codes, bits, words, tail):  # type: ignore[no-untyped-def]  # numba infers the types
    """Pack codes that take a byte each, as `tightwire.wire.packing.pack` packs words."""
    columns = codes.size // ROWS
    for first in range(0, columns, COLUMNS):
        lanes = min(COLUMNS, columns - first)
        for row in range(ROWS):
            start = first * ROWS + row * lanes
            part = codes[start : start + lanes]
            offset, here, following = find_row(words, first * bits, row, lanes, bits)
            if offset == 0:
                for lane in range(lanes):
                    here[lane] = np.uint32(part[lane])
            else:
                for lane in range(lanes):
                    here[lane] |= shl32(np.uint32(part[lane]), offset)
            if offset + bits > 32:
                back = np.uint32(32 - offset)
                for lane in range(lanes):
                    following[lane] = shr32(np.uint32(part[lane]), back)
    for at in range(codes.size - columns * ROWS):
        put_tail(tail, at, codes[columns * ROWS + at], bits)


@numba.njit(cache=True, nogil=True)
def unpack(words, tail, bits, codes):  # type: ignore[no-untyped-def]  # numba infers the types
    """The inverse of `pack`."""
    mask = np.uint32((1 << bits) - 1)
    columns = codes.size // ROWS
    for first in range(0, columns, COLUMNS):
        lanes = min(COLUMNS, columns - first)
        for row in range(ROWS):
            start = first * ROWS + row * lanes
            part = codes[start : start + lanes]
            offset, here, following = find_row(words, first * bits, row, lanes, bits)
            if offset + bits > 32:
                back = np.uint32(32 - offset)
                for lane in range(lanes):
                    part[lane] = np.uint8((shr32(here[lane], offset) | shl32(following[lane], back)) & mask)
            else:
                for lane in range(lanes):
                    part[lane] = np.uint8(shr32(here[lane], offset) & mask)
    for at in range(codes.size - columns * ROWS):
        codes[columns * ROWS + at] = np.uint8(get_tail(tail, at, bits))
