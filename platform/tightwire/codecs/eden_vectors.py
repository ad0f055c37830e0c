"""Codes of 16 normal values at a time, as code for LLVM: what the loops of `eden_kernels` are made of."""

from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from tightwire.codecs import lloyd_max, sixteen
from tightwire.codecs.hadamard_vectors import BLOCK, TILE, mixed, store, tile_of, vectors
from tightwire.codecs.sixteen import LANES, REAL, REALS, WORD, WORDS, splat, spread

SUMS = 512
"""Partial sums of a run: value i goes to sum i % 512, in float32. Halves of them are added up until 16 are left."""


def _sixteen(entries: Any) -> Any:
    """A vector of the entries, again and again."""
    return ir.Constant(REALS, [ir.Constant(REAL, float(entry)) for entry in np.resize(entries, LANES)])


def _by_limit(builder: Any, bits: int, size: Any) -> tuple[Any, Any]:
    """How many thresholds each magnitude reaches, and the level there: one comparison after the other."""
    levels, limits = lloyd_max.LEVELS[bits - 1], lloyd_max.thresholds(bits)
    rank, level = splat(WORD, 0), splat(REAL, float(levels[0]))
    for above, limit in enumerate(limits, 1):
        over = builder.fcmp_ordered(">=", size, splat(REAL, float(limit)))
        rank = builder.select(over, splat(WORD, above), rank)
        level = builder.select(over, splat(REAL, float(levels[above])), level)
    return rank, level


def _by_halves(builder: Any, bits: int, size: Any) -> Any:
    """How many thresholds each magnitude reaches, of 15."""
    limits, rank = lloyd_max.thresholds(bits), splat(WORD, 0)
    for bit in reversed(range(bits - 1)):  # as many limits as `rank` are known not to be above
        edge = sixteen.shuffle(builder, _sixteen(np.roll(limits, 1 - (1 << bit))), rank)
        over = builder.fcmp_ordered(">=", size, edge)
        rank = builder.select(over, builder.add(rank, splat(WORD, 1 << bit)), rank)
    return rank


def _by_cell(builder: Any, bits: int, size: Any) -> Any:
    """How many thresholds each magnitude reaches, of up to 7; of them, no two round to the same quarter."""
    limits, most = lloyd_max.thresholds(bits), splat(REAL, (LANES - 1) / 4)
    below = np.searchsorted(limits, np.arange(LANES) / 4 - 1 / 8)
    small = builder.select(builder.fcmp_ordered("<", size, most), size, most)
    cell = builder.bitcast(builder.fadd(small, splat(REAL, 2.0**21)), WORDS)  # its last bits count quarters
    over = builder.fcmp_ordered(">=", size, sixteen.shuffle(builder, _sixteen(np.append(limits, np.inf)[below]), cell))
    counts = builder.bitcast(ir.Constant(WORDS, below.tolist()), REALS)
    rank = builder.bitcast(sixteen.shuffle(builder, counts, cell), WORDS)
    return builder.select(over, builder.add(rank, splat(WORD, 1)), rank)


def _ranked(builder: Any, bits: int, size: Any) -> tuple[Any, Any]:
    """How many thresholds each magnitude reaches, and the level there."""
    if not sixteen.WIDE or bits not in (3, 4, 5):
        return _by_limit(builder, bits, size)
    rank = (_by_halves if bits == 5 else _by_cell)(builder, bits, size)
    return rank, sixteen.shuffle(builder, _sixteen(lloyd_max.LEVELS[bits - 1]), rank)


def _coded(builder: Any, bits: int, value: Any, factor: Any) -> tuple[Any, Any]:
    """Codes of a vector times `factor`, and the products of that with its levels."""
    raw = builder.bitcast(builder.fmul(builder.load(value, align=4), factor), WORDS)
    size = builder.bitcast(builder.and_(raw, splat(WORD, 0x7FFFFFFF)), REALS)
    rank, level = _ranked(builder, bits, size)
    sign = builder.and_(builder.lshr(raw, splat(WORD, 32 - bits)), splat(WORD, 1 << (bits - 1)))
    return builder.or_(rank, sign), builder.fmul(level, size)


def _coder(bits: int) -> Any:
    @intrinsic
    def code(typingctx, values, start, factor, codes, sums):  # type: ignore[no-untyped-def]  # noqa: ARG001 - numba's interface
        def codegen(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
            values, start, factor, codes, sums = arguments
            kinds, lane = signature.args, builder.and_(start, ir.Constant(start.type, SUMS - 1))
            places = ((kinds[0], values, start), (kinds[3], codes, start), (kinds[4], sums, lane))
            value, into, total = (vectors(context, builder, *place, start, 1)[0] for place in places)
            found, product = _coded(builder, bits, value, spread(builder, factor, REALS))
            builder.store(builder.trunc(found, ir.VectorType(ir.IntType(8), LANES)), into, align=1)
            builder.store(builder.fadd(builder.load(total, align=4), product), total, align=4)
            return context.get_dummy_value()

        return types.void(values, types.int64, types.float32, codes, sums), codegen

    return code


def _word_coder(bits: int) -> Any:
    @intrinsic
    def code(typingctx, values, lane, factor, words, offset, sums):  # type: ignore[no-untyped-def]  # noqa: ARG001 - numba's interface
        def codegen(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
            values, lane, factor, words, offset, sums = arguments
            kinds, wide = signature.args, spread(builder, factor, REALS)
            stride = ir.Constant(lane.type, SUMS)
            (into,) = vectors(context, builder, kinds[3], words, lane, lane, 1)
            (total,) = vectors(context, builder, kinds[5], sums, lane, lane, 1)
            whole, word = ir.Constant(REALS, [0.0] * LANES), splat(WORD, 0)
            for row, value in enumerate(vectors(context, builder, kinds[0], values, lane, stride, BLOCK // SUMS)):
                found, product = _coded(builder, bits, value, wide)
                word = builder.or_(word, builder.shl(found, splat(WORD, row * bits)))
                whole = builder.fadd(whole, product)
            begun = builder.sext(builder.icmp_unsigned("!=", offset, ir.Constant(WORD, 0)), WORD)
            before = builder.and_(builder.load(into, align=4), spread(builder, begun, WORDS))
            word = builder.shl(word, spread(builder, offset, WORDS))
            builder.store(builder.or_(before, word), into, align=4)
            builder.store(whole, total, align=4)
            return context.get_dummy_value()

        return types.void(values, types.int64, types.float32, words, types.uint32, sums), codegen

    return code


@intrinsic
def _squares_of(typingctx, values, lane, factor, sums):  # type: ignore[no-untyped-def]  # noqa: ARG001 - numba's interface
    def codegen(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
        values, lane, factor, sums = arguments
        kinds, wide = signature.args, spread(builder, factor, REALS)
        (into,) = vectors(context, builder, kinds[3], sums, lane, lane, 1)
        total = ir.Constant(REALS, [0.0] * LANES)
        for row in vectors(context, builder, kinds[0], values, lane, ir.Constant(lane.type, SUMS), BLOCK // SUMS):
            value = builder.fmul(builder.load(row, align=4), wide)
            total = builder.fadd(total, builder.fmul(value, value))
        builder.store(total, into, align=4)
        return context.get_dummy_value()

    return types.void(values, types.int64, types.float32, sums), codegen


code1, code2, code3, code4, code5, code6 = map(_coder, range(1, 7))
"""code1(values, start, factor, codes, sums): codes of 16 values times `factor`, a byte each, and products to sums."""
words1, words2, words4 = map(_word_coder, (1, 2, 4))
"""words1(values, lane, factor, words, offset, sums): as `code1`, of 16 columns of a block, to bits of words."""
squares: Any = _squares_of  # its first argument is numba's, which mypy cannot know
"""squares(values, lane, factor, sums): squares of 16 columns of a block, times `factor`, to sums."""


@intrinsic
def _fetch_tile(typingctx, values, start):  # type: ignore[no-untyped-def]  # noqa: ARG001 - numba's interface
    def codegen(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
        array, start = arguments
        byte = ir.IntType(8).as_pointer()
        kind = ir.FunctionType(ir.VoidType(), [byte, WORD, WORD, WORD])
        fetch = builder.module.declare_intrinsic("llvm.prefetch", [byte], kind)
        how = [ir.Constant(WORD, number) for number in (0, 2, 1)]  # to read, to the second cache, data
        for row in tile_of(context, builder, signature.args[0], array, start):
            builder.call(fetch, [builder.bitcast(row, byte), *how])
        return context.get_dummy_value()

    return types.void(values, types.int64), codegen


fetch: Any = _fetch_tile  # likewise
"""Have a tile that will be needed soon brought from memory; it may lie beyond the end of the array."""


@intrinsic
def _levels_of(typingctx, words, offset, bits, levels, out, start):  # type: ignore[no-untyped-def]  # noqa: ARG001 - numba's interface
    def codegen(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
        if not sixteen.WIDE:
            return context.get_dummy_value()  # nobody calls it then, but it is compiled
        words, offset, bits, levels, out, start = arguments
        kinds, zero = signature.args, ir.Constant(start.type, 0)
        (table,) = vectors(context, builder, kinds[3], levels, zero, zero, 1)
        table, right = builder.load(table, align=4), spread(builder, offset, WORDS)
        left = spread(builder, builder.sub(ir.Constant(WORD, 32), builder.add(offset, bits)), WORDS)
        rows = []
        for place in tile_of(context, builder, kinds[0], words, builder.and_(start, ir.Constant(start.type, TILE))):
            word = builder.load(place, align=4)
            level = builder.bitcast(sixteen.shuffle(builder, table, builder.lshr(word, right)), WORDS)
            sign = builder.and_(builder.shl(word, left), splat(WORD, 1 << 31))
            rows.append(builder.bitcast(builder.xor(level, sign), REALS))
        store(builder, mixed(builder, rows), tile_of(context, builder, kinds[4], out, start))
        return context.get_dummy_value()

    return types.void(words, types.uint32, types.uint32, levels, out, types.int64), codegen


levels_of_tile: Any = _levels_of  # likewise
"""levels_of_tile(words, offset, bits, levels, out, start): levels of a tile's codes, and its butterflies, to `out`."""
