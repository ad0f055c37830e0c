"""Butterflies and signs on vectors of 16 floats, as code for LLVM: what the loops of `hadamard` are made of.

Each butterfly is one float32 sum and one difference, whose order is fixed.
"""

from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from tightwire.codecs import sixteen
from tightwire.codecs.sixteen import LANES, REAL, REALS, WORD, WORDS, splat, spread

BLOCK = 2**12
"""Most values of a block."""
TILE = 256
"""Values whose butterflies run in registers: 16 vectors of 16."""
LARGEST = np.finfo(np.float32).max
TWO_THIRDS = np.float32(2 / 3)
_TOP = 0x80000000
"""The sign of a float32."""


def vectors(context: Any, builder: Any, kind: Any, array: Any, start: Any, stride: Any, count: int) -> list[Any]:
    """Pointers to `count` vectors of 16 items of the array, from item `start` on and `stride` items apart."""
    data = context.make_array(kind)(context, builder, array).data
    vector = ir.VectorType(data.type.pointee, LANES).as_pointer()
    places = [builder.add(start, builder.mul(stride, ir.Constant(start.type, at))) for at in range(count)]
    return [builder.bitcast(builder.gep(data, [place]), vector) for place in places]


def load(builder: Any, pointers: list[Any]) -> list[Any]:
    """The vector at each pointer."""
    return [builder.load(pointer, align=4) for pointer in pointers]


def store(builder: Any, rows: list[Any], pointers: list[Any]) -> None:
    """Store a vector at each pointer."""
    for row, pointer in zip(rows, pointers, strict=True):
        builder.store(row, pointer, align=4)


def _across(builder: Any, rows: list[Any], minus: Any = None) -> list[Any]:
    """Butterflies between vectors, the nearest first; with a vector of -1, differences are products and sums."""
    step = 1
    while step < len(rows):
        rows = [
            builder.fadd(row, rows[at ^ step])
            if not at & step
            else sixteen.fma(builder, row, minus, rows[at ^ step])
            if minus
            else builder.fsub(rows[at ^ step], row)
            for at, row in enumerate(rows)
        ]
        step *= 2
    return rows


def _within(builder: Any, row: Any) -> Any:
    """Butterflies between the values of a vector, the nearest first."""
    step = 1
    while step < LANES:
        other = builder.shuffle_vector(row, row, ir.Constant(WORDS, [lane ^ step for lane in range(LANES)]))
        if sixteen.FUSED:  # a product with 1 or -1 is exact: this rounds once, as a sum does, and is one instruction
            ones = ir.Constant(REALS, [-1.0 if lane & step else 1.0 for lane in range(LANES)])
            row = sixteen.fma(builder, row, ones, other)
        else:
            flip = ir.Constant(WORDS, [_TOP if lane & step else 0 for lane in range(LANES)])
            row = builder.fadd(other, builder.bitcast(builder.xor(builder.bitcast(row, WORDS), flip), REALS))
        step *= 2
    return row


def mixed(builder: Any, rows: list[Any]) -> list[Any]:
    """All butterflies of a tile."""
    return _across(builder, [_within(builder, row) for row in rows])


def _signed(builder: Any, row: Any, word: Any, shift: Any) -> Any:
    """A row, negated where the bit of a word that `shift` moves to the top is set."""
    flip = builder.and_(builder.shl(word, shift), splat(WORD, _TOP))
    return builder.bitcast(builder.xor(builder.bitcast(row, WORDS), flip), REALS)


def tile_of(context: Any, builder: Any, kind: Any, array: Any, start: Any) -> list[Any]:
    """Pointers to the vectors of the tile that begins at item `start`."""
    return vectors(context, builder, kind, array, start, ir.Constant(start.type, LANES), TILE // LANES)


def _signed_tile(context: Any, builder: Any, rows: list[Any], kind: Any, words: Any, tile: Any) -> list[Any]:
    shift = spread(builder, builder.sub(ir.Constant(WORD, 31), builder.trunc(tile, WORD)), WORDS)
    drawn = load(builder, tile_of(context, builder, kind, words, ir.Constant(tile.type, 0)))
    return [_signed(builder, row, word, shift) for row, word in zip(rows, drawn, strict=True)]


@intrinsic
def _turn_tile(typingctx, values, out, words, tile, factor):  # type: ignore[no-untyped-def]  # noqa: ARG001 - numba's interface
    def codegen(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
        values, out, words, tile, factor = arguments
        kinds, start = signature.args, builder.mul(tile, ir.Constant(tile.type, TILE))
        wide = spread(builder, factor, REALS)
        rows = load(builder, tile_of(context, builder, kinds[0], values, start))
        rows = [builder.fmul(row, wide) for row in rows]
        rows = mixed(builder, _signed_tile(context, builder, rows, kinds[2], words, tile))
        store(builder, rows, tile_of(context, builder, kinds[1], out, start))
        return context.get_dummy_value()

    return types.void(values, out, words, types.int64, types.float32), codegen


def _return_tile(added: bool) -> Any:
    @intrinsic
    def turn(typingctx, values, out, words, tile, factor, scale, weight):  # type: ignore[no-untyped-def]  # noqa: ARG001 - numba's interface
        def codegen(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
            values, out, words, tile, factor, scale, weight = arguments
            kinds, start = signature.args, builder.mul(tile, ir.Constant(tile.type, TILE))
            wide, scales, weights = (spread(builder, one, REALS) for one in (factor, scale, weight))
            most, least = (splat(REAL, float(edge)) for edge in (LARGEST, -LARGEST))
            rows = load(builder, tile_of(context, builder, kinds[0], values, start))
            rows = _signed_tile(context, builder, mixed(builder, rows), kinds[2], words, tile)
            for row, target in zip(rows, tile_of(context, builder, kinds[1], out, start), strict=True):
                value = builder.fmul(builder.fmul(row, wide), scales)
                value = builder.select(builder.fcmp_ordered("<", value, most), value, most)
                value = builder.select(builder.fcmp_ordered(">", value, least), value, least)
                if added:
                    value = builder.fadd(builder.load(target, align=4), builder.fmul(value, weights))
                builder.store(value, target, align=4)
            return context.get_dummy_value()

        return types.void(values, out, words, types.int64, *[types.float32] * 3), codegen

    return turn


@intrinsic
def _turn_columns(typingctx, values, words, start, minus):  # type: ignore[no-untyped-def]  # noqa: ARG001 - numba's interface
    def codegen(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
        values, words, start, minus = arguments
        kinds, stride = signature.args, ir.Constant(start.type, TILE)
        ones = spread(builder, minus, REALS) if sixteen.FUSED else None
        pointers = vectors(context, builder, kinds[0], values, start, stride, BLOCK // TILE)
        (word,) = load(builder, vectors(context, builder, kinds[1], words, start, stride, 1))
        rows = _across(builder, load(builder, pointers), ones)
        rows = [_signed(builder, row, word, splat(WORD, 31 - at)) for at, row in enumerate(rows)]
        store(builder, _across(builder, rows, ones), pointers)
        return context.get_dummy_value()

    return types.void(values, words, types.int64, types.float32), codegen


@intrinsic
def _butterflies_of_tile(typingctx, values, start):  # type: ignore[no-untyped-def]  # noqa: ARG001 - numba's interface
    def codegen(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
        array, start = arguments
        pointers = tile_of(context, builder, signature.args[0], array, start)
        store(builder, mixed(builder, load(builder, pointers)), pointers)
        return context.get_dummy_value()

    return types.void(values, types.int64), codegen


def _rows(count: int) -> Any:
    @intrinsic
    def butterflies(typingctx, values, start, stride):  # type: ignore[no-untyped-def]  # noqa: ARG001 - numba's interface
        def codegen(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
            array, start, stride = arguments
            pointers = vectors(context, builder, signature.args[0], array, start, stride, count)
            store(builder, _across(builder, load(builder, pointers)), pointers)
            return context.get_dummy_value()

        return types.void(values, types.int64, types.int64), codegen

    return butterflies


rows2, rows4, rows8, rows16 = _rows(2), _rows(4), _rows(8), _rows(16)
"""rows8(values, start, stride): all butterflies between eight vectors of `values`, from `start` on, and so on."""
turn_back, add_back = _return_tile(False), _return_tile(True)
"""turn_back(values, out, words, tile, factor, scale, weight): the butterflies of a tile, and its signs, to `out`.

What goes there is times `factor`, times `scale`, and limited. `add_back` adds it to what is there, times `weight`.
"""


@intrinsic
def _reflection_of_three(typingctx, values, start, stride):  # type: ignore[no-untyped-def]  # noqa: ARG001 - numba's interface
    def codegen(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
        array, start, stride = arguments
        pointers = vectors(context, builder, signature.args[0], array, start, stride, 3)
        rows = load(builder, pointers)
        total = builder.fadd(builder.fadd(rows[0], rows[1]), rows[2])
        share = builder.fmul(total, splat(REAL, float(TWO_THIRDS)))
        store(builder, [builder.fsub(row, share) for row in rows], pointers)
        return context.get_dummy_value()

    return types.void(values, types.int64, types.int64), codegen


@intrinsic
def _signed_value(typingctx, value, word):  # type: ignore[no-untyped-def]  # noqa: ARG001 - numba's interface
    def codegen(context, builder, signature, arguments):  # type: ignore[no-untyped-def]  # noqa: ARG001 - likewise
        value, word = arguments
        top = builder.and_(word, ir.Constant(word.type, _TOP))
        return builder.bitcast(builder.xor(builder.bitcast(value, word.type), top), value.type)

    return types.float32(types.float32, types.uint32), codegen


mix_tile: Any = _butterflies_of_tile  # mypy cannot know that the first argument is numba's, here and below
"""mix_tile(values, start): all butterflies of a tile, in place."""
mix_three: Any = _reflection_of_three
"""mix_three(values, start, stride): the reflection of three vectors, in place."""
signed: Any = _signed_value
"""A float32, negated where the top bit of a uint32 is set."""
turn: Any = _turn_tile
"""turn(values, out, words, tile, factor): the signs of a tile, times `factor`, and its butterflies, to `out`."""
turn_columns: Any = _turn_columns
"""turn_columns(values, words, start, minus): between the tiles of a block, butterflies, signs and butterflies again.

That is for 16 columns from `start` on; `minus` is -1.
"""
