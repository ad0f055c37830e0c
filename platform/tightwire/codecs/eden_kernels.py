"""The hot loops of `tightwire.codecs.eden`; `tightwire.codecs.hadamard_twins` holds the same in plain NumPy.

A code is a magnitude's level, counted from 0, with the sign in its top bit. While they are made, codes take a byte.
"""

import math
from typing import Any

import numba
import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from tightwire.codecs import lloyd_max, sixteen
from tightwire.codecs.hadamard import BLOCK, LANES, rotate, start, unrotate, vectors
from tightwire.wire.packing import LANES as COLUMNS
from tightwire.wire.packing import ROWS, find_row, get_tail, put_tail
from tightwire.wire.words import shl32, shr32

SUMS = 512
"""Partial sums of a run: value i goes to sum i % 512, in float32, and they are added up in order, in float64."""
FOLD = np.uint32(0x7FFFFFFF)
"""All bits of a float32 but its sign."""
LEAST, MOST = -126, 126
"""Powers of two that a block is scaled by, at most."""


def _splat(kind: Any, value: Any) -> Any:
    return ir.Constant(ir.VectorType(kind, LANES), [ir.Constant(kind, value)] * LANES)


def _sixteen(kind: Any, entries: Any) -> Any:
    """A vector of the entries, again and again."""
    return ir.Constant(kind, [ir.Constant(kind.element, float(entry)) for entry in np.resize(entries, LANES)])


def _coder(bits: int) -> Any:
    levels, limits = lloyd_max.LEVELS[bits - 1], lloyd_max.thresholds(bits)

    @intrinsic
    def code(typingctx, values, start, factor, codes, sums):  # type: ignore[no-untyped-def]  # noqa: ARG001 - numba's interface
        def codegen(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
            value, start, factor, code, total = arguments
            kinds = signature.args
            real, word, byte = ir.FloatType(), ir.IntType(32), ir.IntType(8)
            (source,) = vectors(context, builder, kinds[0], value, start, start, 1)
            loaded = builder.load(source)
            loaded.align = 4
            wide = ir.Constant(ir.VectorType(real, LANES), ir.Undefined)
            wide = builder.insert_element(wide, factor, ir.Constant(word, 0))
            wide = builder.shuffle_vector(wide, wide, _splat(word, 0))
            raw = builder.bitcast(builder.fmul(loaded, wide), ir.VectorType(word, LANES))
            size = builder.bitcast(builder.and_(raw, _splat(word, 0x7FFFFFFF)), wide.type)
            rank, level = _splat(word, 0), _splat(real, float(levels[0]))
            if sixteen.WIDE and 2 < len(levels) <= LANES:
                edges, values = (_sixteen(wide.type, row) for row in (limits, levels))
                for bit in reversed(range(bits - 1)):  # as many limits as `rank` are known not to be above
                    edge = sixteen.shuffle(builder, edges, builder.add(rank, _splat(word, (1 << bit) - 1)))
                    over = builder.fcmp_ordered(">=", size, edge)
                    rank = builder.select(over, builder.or_(rank, _splat(word, 1 << bit)), rank)
                level = sixteen.shuffle(builder, values, rank)
            else:
                for above, limit in enumerate(limits, 1):
                    over = builder.fcmp_ordered(">=", size, _splat(real, float(limit)))
                    rank = builder.select(over, _splat(word, above), rank)
                    level = builder.select(over, _splat(real, float(levels[above])), level)
            sign = builder.shl(builder.lshr(raw, _splat(word, 31)), _splat(word, bits - 1))
            (into,) = vectors(context, builder, kinds[3], code, start, start, 1)
            builder.store(builder.trunc(builder.or_(rank, sign), ir.VectorType(byte, LANES)), into).align = 1
            lane = builder.and_(start, ir.Constant(start.type, SUMS - 1))
            (partial,) = vectors(context, builder, kinds[4], total, lane, lane, 1)
            before = builder.load(partial)
            before.align = 4
            builder.store(builder.fadd(before, builder.fmul(level, size)), partial).align = 4
            return context.get_dummy_value()

        return types.void(values, types.int64, types.float32, codes, sums), codegen

    return code


_code1, _code2, _code3, _code4, _code5, _code6 = map(_coder, range(1, 7))
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
    total = np.float64(0)
    for lane in range(SUMS):
        total += np.float64(sums[lane])
    return total


@numba.njit(cache=True, nogil=True)
def energy(values, sums):  # type: ignore[no-untyped-def]  # numba infers the types
    """The sum of squares of up to 2**14 `values`, in the order of `SUMS`."""
    sums[:] = 0
    for first in range(0, values.size, SUMS):
        part = values[first : first + SUMS]
        for lane in range(part.size):
            sums[lane] += part[lane] * part[lane]
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
            _code1(values, at, factor, codes, sums)
        elif bits == 2:
            _code2(values, at, factor, codes, sums)
        elif bits == 3:
            _code3(values, at, factor, codes, sums)
        elif bits == 4:
            _code4(values, at, factor, codes, sums)
        elif bits == 5:
            _code5(values, at, factor, codes, sums)
        else:
            _code6(values, at, factor, codes, sums)
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
def encode(values, edges, fine, bits, unbiased, k0, k1, codes, extras, scales):  # type: ignore[no-untyped-def]  # numba infers the types
    """Rotate and quantise block by block.

    Args:
        values: Shape (n,), finite.
        edges: Of the blocks, shape (blocks + 1,).
        fine: Of each block, how many values come first with a bit more than the others, shape (blocks,).
        bits: Of the others, 0 to 8; 0 drops them.
        unbiased: Which scale.
        k0: Of the rotation's signs, as k1.
        k1: See there.
        codes: Set to the codes, less the lowest bit of those with a bit more where `bits` is not 0; a byte each.
        extras: Set to those bits, a byte each.
        scales: Set to a scale for each block, float32, shape (blocks,).
    """
    buffer, chosen, sums = np.empty(BLOCK, np.float32), np.empty(BLOCK, np.float32), np.empty(SUMS, np.float32)
    done = more = 0
    for block in range(edges.size - 1):
        part = values[edges[block] : edges[block + 1]]
        n, first = part.size, fine[block]
        here, extra = codes[done : done + (n if bits else first)], extras[more : more + (first if bits else 0)]
        done += here.size
        more += extra.size
        top, exponent = _exponent(part.view(np.uint32))
        if top == 0:
            here[:] = 0
            extra[:] = 0
            scales[block] = 0
            continue
        rotated = buffer[:n]
        rotate(part, rotated, np.float32(math.ldexp(1.0, -exponent)), block, True, k0, k1)
        norm = energy(rotated, sums)
        factor = np.float32(math.sqrt(n / norm))
        kept = norm
        if bits == 0:
            shift = start(n, block, k0, k1)
            for at in range(first):
                chosen[at] = rotated[(at + shift) % n]
            rotated = chosen[:first]
            kept = energy(rotated, sums)
        product = weight = np.float64(0)
        if first:
            product += quantise(rotated[:first], factor, bits + 1, here[:first], sums)
            if not unbiased:
                weight += _weight(here[:first], bits + 1)
            for at in range(extra.size):
                extra[at] = here[at] & 1
                here[at] >>= 1
        if bits and first < n:
            product += quantise(rotated[first:], factor, bits, here[first:], sums)
            if not unbiased:
                weight += _weight(here[first:], bits)
        product /= np.float64(factor)
        if product <= 0:
            scale = 0.0
        elif unbiased:
            scale = kept / product * (1.0 if bits else n / first)
        else:
            scale = product / weight
        scales[block] = min(math.ldexp(scale, exponent), np.float64(np.finfo(np.float32).max))


@numba.njit(cache=True, nogil=True)
def decode(codes, extras, edges, fine, bits, k0, k1, scales, out):  # type: ignore[no-untyped-def]  # numba infers the types
    """The inverse of `encode`, whatever the codes are, to `out`, shape (n,); the scales are finite."""
    table, finer = _table(bits), _table(bits + 1)
    done = more = 0
    for block in range(edges.size - 1):
        part, first = out[edges[block] : edges[block + 1]], fine[block]
        n = part.size
        if bits == 0:
            part[:] = 0
            shift = start(n, block, k0, k1)
            for at in range(first):
                part[(at + shift) % n] = finer[codes[done + at]]
            done += first
        else:
            here = codes[done : done + n]
            for at in range(first):
                part[at] = finer[here[at] << 1 | extras[more + at]]
            rest, others = part[first:], here[first:]
            for at in range(rest.size):
                rest[at] = table[others[at]]
            done += n
            more += first
        unrotate(part, np.float32(1.0), scales[block], block, True, k0, k1)


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
