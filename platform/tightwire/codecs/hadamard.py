"""Fast random rotations: signs and Hadamard transforms of blocks, of any length and never padded.

A vector is cut into blocks of 2**14 values, which stay in a core's second cache (`edges`). A block of p = q * 2**j
values, q = 1 or 3, is rotated by x -> H D x, where D are random signs and H = (I - 2/q ones) (x) S / 2**(j/2): S is the
Hadamard matrix of order 2**j in Sylvester's order, whose product takes j butterflies a value, and the Householder
reflection, only for q = 3, mixes three rows. A block of another length n is rotated step by step: its first p values,
its last p values, and so on in turn, for the largest such p up to n, with fresh signs in each step; more than half of
the first are among the last. All of it is orthogonal, and H is its own inverse.

One step makes any values about normal, but for those that are special: two values other than 0, alone, give only two
magnitudes. A thorough rotation takes several steps, and for less than 256 values also random reflections, until what
comes out has the statistics of a uniformly random rotation: eight steps where n is not p, five for q = 3, and two for
blocks of 4096 values or more, three from 256 on and four below otherwise.

Butterflies run on explicit vectors of 16 floats, eight levels at a time in registers. Each is one float32 sum and one
difference in a fixed order, so the bits are the same on every machine; `tightwire.codecs.hadamard_twins` holds the
same in plain NumPy.
"""

from typing import Any

import numba
import numpy as np
import numpy.typing as npt
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from tightwire.codecs.kernels import STEP
from tightwire.wire.words import add32, mul32, shl32, shr32, xor32

Edges = npt.NDArray[np.int64]
"""Where blocks begin, and behind them where the last one ends."""

BLOCK = 2**14
"""Most values of a block."""
SIGNS = 512
"""Words of signs for a block: the sign of value i is bit i // 512 of word i % 512."""
TILE = 256
"""Values whose butterflies run in registers: 16 vectors of 16."""
STEPS = 9
"""Rows of random words that a block may take: up to eight for its steps, and one for `start`."""
LANES = 16
LARGEST = np.finfo(np.float32).max
TWO_THIRDS = np.float32(2 / 3)
HEADROOM = np.float32(2.0**-16)
"""What values are multiplied by before an inverse, so that nothing overflows."""


def whole(n: int) -> int:
    """The largest length up to `n`, 1 or more, that one step can rotate: two significant bits."""
    spare = max(n.bit_length() - 2, 0)
    return n >> spare << spare


def edges(n: int) -> Edges:
    """The blocks of `n` values: all of 2**14 but the last two, which share what is left about evenly."""
    full, rest = divmod(n, BLOCK)
    if not rest:
        return np.arange(full + 1) * BLOCK
    if not full:
        return np.array([0, n])
    share = next(length for length in (BLOCK // 2, BLOCK // 4 * 3, BLOCK) if length >= rest)
    return np.append(np.arange(full) * BLOCK, [n - (BLOCK + rest - share), n])


def grouped(n: int, length: int) -> Edges:
    """The blocks of groups of `length` values each, of which the last may be shorter; `n` values in all."""
    groups, rest = divmod(n, length)
    inner = edges(length)[:-1]
    starts = np.add.outer(np.arange(groups) * length, inner).ravel()
    return np.concatenate([starts, groups * length + edges(rest)]) if rest else np.append(starts, n)


def vectors(context: Any, builder: Any, kind: Any, array: Any, start: Any, stride: Any, count: int) -> list[Any]:
    """Pointers to `count` vectors of 16 items of the array, from item `start` on and `stride` items apart."""
    data = context.make_array(kind)(context, builder, array).data
    vector = ir.VectorType(data.type.pointee, LANES).as_pointer()
    places = [builder.add(start, builder.mul(stride, ir.Constant(start.type, at))) for at in range(count)]
    return [builder.bitcast(builder.gep(data, [place]), vector) for place in places]


def _load(builder: Any, pointers: list[Any]) -> list[Any]:
    loads = [builder.load(pointer) for pointer in pointers]
    for load in loads:
        load.align = 4
    return loads


def _across(builder: Any, rows: list[Any]) -> list[Any]:
    """Butterflies between vectors, the nearest first."""
    step = 1
    while step < len(rows):
        rows = [
            builder.fsub(rows[at ^ step], row) if at & step else builder.fadd(row, rows[at ^ step])
            for at, row in enumerate(rows)
        ]
        step *= 2
    return rows


def _within(builder: Any, row: Any) -> Any:
    """Butterflies between the values of a vector, the nearest first."""
    words = ir.VectorType(ir.IntType(32), LANES)
    step = 1
    while step < LANES:
        other = builder.shuffle_vector(row, row, ir.Constant(words, [lane ^ step for lane in range(LANES)]))
        flip = ir.Constant(words, [0x80000000 if lane & step else 0 for lane in range(LANES)])
        row = builder.fadd(other, builder.bitcast(builder.xor(builder.bitcast(row, words), flip), row.type))
        step *= 2
    return row


@intrinsic
def _butterflies_of_tile(typingctx, values, start):  # type: ignore[no-untyped-def]  # noqa: ARG001 - numba's interface
    def codegen(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
        array, start = arguments
        stride = ir.Constant(start.type, LANES)
        pointers = vectors(context, builder, signature.args[0], array, start, stride, TILE // LANES)
        rows = _across(builder, [_within(builder, row) for row in _load(builder, pointers)])
        for row, pointer in zip(rows, pointers, strict=True):
            builder.store(row, pointer).align = 4
        return context.get_dummy_value()

    return types.void(values, types.int64), codegen


def _rows(count: int) -> Any:
    @intrinsic
    def butterflies(typingctx, values, start, stride):  # type: ignore[no-untyped-def]  # noqa: ARG001 - numba's interface
        def codegen(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
            array, start, stride = arguments
            pointers = vectors(context, builder, signature.args[0], array, start, stride, count)
            for row, pointer in zip(_across(builder, _load(builder, pointers)), pointers, strict=True):
                builder.store(row, pointer).align = 4
            return context.get_dummy_value()

        return types.void(values, types.int64, types.int64), codegen

    return butterflies


_two, _four, _eight = _rows(2), _rows(4), _rows(8)


@intrinsic
def _reflection_of_three(typingctx, values, start, stride):  # type: ignore[no-untyped-def]  # noqa: ARG001 - numba's interface
    def codegen(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
        array, start, stride = arguments
        pointers = vectors(context, builder, signature.args[0], array, start, stride, 3)
        rows = _load(builder, pointers)
        total = builder.fadd(builder.fadd(rows[0], rows[1]), rows[2])
        share = builder.fmul(total, ir.Constant(total.type, [float(TWO_THIRDS)] * LANES))
        for row, pointer in zip(rows, pointers, strict=True):
            builder.store(builder.fsub(row, share), pointer).align = 4
        return context.get_dummy_value()

    return types.void(values, types.int64, types.int64), codegen


@intrinsic
def _signed(typingctx, value, word):  # type: ignore[no-untyped-def]  # noqa: ARG001 - numba's interface
    def codegen(context, builder, signature, arguments):  # type: ignore[no-untyped-def]  # noqa: ARG001 - likewise
        value, word = arguments
        top = builder.and_(word, ir.Constant(word.type, 0x80000000))
        return builder.bitcast(builder.xor(builder.bitcast(value, word.type), top), value.type)

    return types.float32(types.float32, types.uint32), codegen


_tile: Any = _butterflies_of_tile  # mypy cannot know that the first argument is numba's, here and below
_three: Any = _reflection_of_three
signed: Any = _signed
"""A float32, negated where the top bit of a uint32 is set."""


@numba.njit(cache=True, nogil=True)
def transform(values):  # type: ignore[no-untyped-def]  # numba infers the types
    """Multiply a power of two of `values` by the Hadamard matrix in Sylvester's order, not normalised, in place."""
    n = values.size
    if n < TILE:
        step = 1
        while step < n:
            for first in range(0, n, 2 * step):
                for at in range(first, first + step):
                    a, b = values[at], values[at + step]
                    values[at], values[at + step] = a + b, a - b
            step *= 2
        return
    near = min(n, 8 * TILE)
    for first in range(0, n, near):
        for at in range(first, first + near, TILE):
            _tile(values, at)
        if near == 8 * TILE:
            for at in range(first, first + TILE, LANES):
                _eight(values, at, TILE)
    step = TILE if near < 8 * TILE else near
    while step < n:
        radix = min(n // step, 8)
        for first in range(0, n, radix * step):
            for at in range(first, first + step, LANES):
                if radix == 8:
                    _eight(values, at, step)
                elif radix == 4:
                    _four(values, at, step)
                else:
                    _two(values, at, step)
        step *= radix


@numba.njit(cache=True, nogil=True)
def _whole(n):  # type: ignore[no-untyped-def]  # numba infers the types
    spare = 0
    while n >> spare > 3:
        spare += 1
    return n >> spare << spare


@numba.njit(cache=True, nogil=True)
def _mix(values, rows):  # type: ignore[no-untyped-def]  # numba infers the types
    length = values.size // rows
    if rows == 3:
        done = length // LANES * LANES
        for at in range(0, done, LANES):
            _three(values, at, length)
        for at in range(done, length):
            share = (values[at] + values[length + at] + values[2 * length + at]) * TWO_THIRDS
            for row in range(3):
                values[row * length + at] -= share
    for row in range(rows):
        transform(values[row * length : (row + 1) * length])


@numba.njit(cache=True, nogil=True)
def _draw(words, walk, k0, k1):  # type: ignore[no-untyped-def]  # numba infers the types
    for lane in range(words.size):
        x = xor32(walk, k0)
        x = xor32(mul32(xor32(x, shr32(x, np.uint32(16))), np.uint32(0x21F0AAAD)), k1)
        x = mul32(xor32(x, shr32(x, np.uint32(15))), np.uint32(0x735A2D97))
        words[lane] = xor32(x, shr32(x, np.uint32(15)))
        walk = add32(walk, STEP)


@numba.njit(cache=True, nogil=True)
def _sign(values, out, words, factor):  # type: ignore[no-untyped-def]  # numba infers the types
    for row in range((values.size + SIGNS - 1) // SIGNS):
        part, into = values[row * SIGNS : (row + 1) * SIGNS], out[row * SIGNS : (row + 1) * SIGNS]
        shift = np.uint32(31 - row)
        for lane in range(part.size):
            into[lane] = signed(part[lane] * factor, shl32(words[lane], shift))


@numba.njit(cache=True, nogil=True)
def _flip(values, words, factor):  # type: ignore[no-untyped-def]  # numba infers the types
    for row in range((values.size + SIGNS - 1) // SIGNS):
        part = values[row * SIGNS : (row + 1) * SIGNS]
        shift = np.uint32(31 - row)
        for lane in range(part.size):
            part[lane] = signed(part[lane] * factor, shl32(words[lane], shift))


@numba.njit(cache=True, nogil=True, inline="always")
def _limited(value):  # type: ignore[no-untyped-def]  # numba infers the types
    below = value if value < LARGEST else LARGEST  # noqa: FURB136 - numba's min minds NaNs, and takes twice as long
    return below if below > -LARGEST else -LARGEST  # noqa: FURB136 - as above


@numba.njit(cache=True, nogil=True)
def _unsign(values, words, factor, scale):  # type: ignore[no-untyped-def]  # numba infers the types
    for row in range((values.size + SIGNS - 1) // SIGNS):
        part = values[row * SIGNS : (row + 1) * SIGNS]
        shift = np.uint32(31 - row)
        for lane in range(part.size):
            part[lane] = _limited(signed(part[lane] * factor, shl32(words[lane], shift)) * scale)


@numba.njit(cache=True, nogil=True)
def _reflect(values, words):  # type: ignore[no-untyped-def]  # numba infers the types
    along = across = np.float64(0)
    for at in range(values.size):
        normal = _normal(words[at])
        along += normal * np.float64(values[at])
        across += normal * normal
    share = 2 * along / max(across, 1.0)
    for at in range(values.size):
        values[at] = np.float32(np.float64(values[at]) - share * _normal(words[at]))


@numba.njit(cache=True, nogil=True)
def _normal(word):  # type: ignore[no-untyped-def]  # numba infers the types
    total = (word & 255) + (word >> 8 & 255) + (word >> 16 & 255) + (word >> 24)
    return np.float64(np.int64(total) - 510)


@numba.njit(cache=True, nogil=True)
def _plan(n, thorough):  # type: ignore[no-untyped-def]  # numba infers the types
    length = _whole(n)
    rows = 1 if length & length - 1 == 0 else 3
    if length < n:
        steps = 8 if thorough else 3
    elif thorough:
        steps = 5 if rows == 3 else 4 if n < TILE else 3 if n < BLOCK // 4 else 2
    else:
        steps = 1
    return length, rows, steps, np.float32(1 / np.sqrt(np.float64(length // rows)))


@numba.njit(cache=True, nogil=True)
def start(n, block, k0, k1):  # type: ignore[no-untyped-def]  # numba infers the types
    """A random one of the `n` places of a block."""
    word = np.empty(1, np.uint32)
    _draw(word, mul32(np.uint32((block * STEPS + STEPS - 1) * SIGNS), STEP), k0, k1)
    return np.int64(np.uint64(word[0]) * np.uint64(n) >> np.uint64(32))


@numba.njit(cache=True, nogil=True)
def rotate(values, out, scale, block, thorough, k0, k1):  # type: ignore[no-untyped-def]  # numba infers the types
    """Rotate `values`, times `scale`, to `out`; they are block number `block` of at most 2**14 values."""
    n = values.size
    words = np.empty(SIGNS, np.uint32)
    length, rows, steps, factor = _plan(n, thorough)
    for at in range(length, n):
        out[at] = values[at] * scale
    for step in range(steps):
        first = (n - length) * (step & 1)
        part = out[first : first + length]
        _draw(words[: min(2 * length, SIGNS)], mul32(np.uint32((block * STEPS + step) * SIGNS), STEP), k0, k1)
        if step:
            _flip(part, words, factor)
        else:
            _sign(values[:length], part, words, factor * scale)
        if thorough and n < TILE:
            _reflect(part, words[length:])
        _mix(part, rows)


@numba.njit(cache=True, nogil=True)
def unrotate(values, room, scale, block, thorough, k0, k1):  # type: ignore[no-untyped-def]  # numba infers the types
    """The inverse of `rotate`, in place, times `room`, times `scale`, and limited to float32's range."""
    n = values.size
    words = np.empty(SIGNS, np.uint32)
    length, rows, steps, factor = _plan(n, thorough)
    for back in range(steps):
        step = steps - 1 - back
        first = (n - length) * (step & 1)
        part = values[first : first + length]
        _draw(words[: min(2 * length, SIGNS)], mul32(np.uint32((block * STEPS + step) * SIGNS), STEP), k0, k1)
        _mix(part, rows)
        if thorough and n < TILE:
            _reflect(part, words[length:])
        if step:
            _flip(part, words, factor)
        else:
            _unsign(part, words, factor * room, scale)
    for at in range(length, n):
        values[at] = _limited(values[at] * room * scale)


@numba.njit(cache=True, nogil=True)
def rotate_blocks(values, edges, scale, k0, k1, out):  # type: ignore[no-untyped-def]  # numba infers the types
    """Rotate every block of `values`, times `scale`, to `out`, in one step each where its length allows."""
    for block in range(edges.size - 1):
        first, last = edges[block], edges[block + 1]
        rotate(values[first:last], out[first:last], scale, block, False, k0, k1)


@numba.njit(cache=True, nogil=True)
def unrotate_blocks(values, edges, scale, k0, k1, out):  # type: ignore[no-untyped-def]  # numba infers the types
    """The inverse of `rotate_blocks`, whatever the finite `values`; what leaves float32's range is limited to it."""
    for block in range(edges.size - 1):
        part, into = values[edges[block] : edges[block + 1]], out[edges[block] : edges[block + 1]]
        for at in range(part.size):
            into[at] = part[at] * HEADROOM
        unrotate(into, np.float32(1.0) / HEADROOM, scale, block, False, k0, k1)


def keys(seed: int) -> tuple[np.uint32, np.uint32]:
    """Both keys of the signs, from a seed of 32 bits."""
    return np.uint32(seed), np.uint32((seed * 0x85EBCA6B + 0xC2B2AE35) % 2**32)
