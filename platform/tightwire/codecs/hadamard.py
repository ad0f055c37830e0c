"""Fast random rotations: signs and Hadamard transforms of blocks, of any length and never padded.

A vector is cut into blocks of 2**12 values, which stay in a core's first cache (`edges`). A block of p = q * 2**j
values, q = 1 or 3, is rotated by x -> H D x, where D are random signs and H = (I - 2/q ones) (x) S / 2**(j/2): S is the
Hadamard matrix of order 2**j in Sylvester's order, whose product takes j butterflies a value, and the Householder
reflection, only for q = 3, mixes three rows. A block of another length n is rotated step by step: its first p values,
its last p values, and so on in turn, for the largest such p up to n, with fresh signs in each step; more than half of
the first are among the last. All of it is orthogonal, and H is its own inverse.

One step makes any values about normal, but for those that are special: two values other than 0, alone, give only two
magnitudes. A thorough rotation takes several steps, and for less than 256 values also random reflections, until what
comes out has the statistics of a uniformly random rotation: eight steps where n is not p, five for q = 3, and three
from 256 values on and four below otherwise, but two for a full block.

Butterflies run on explicit vectors of 16 floats, eight levels at a time in registers. Each is one float32 sum and one
difference in a fixed order, so the bits are the same on every machine; `tightwire.codecs.hadamard_twins` holds the same
in plain NumPy.
"""

import numba
import numpy as np
import numpy.typing as npt

from tightwire.codecs.hadamard_vectors import (
    BLOCK,
    LARGEST,
    TILE,
    TWO_THIRDS,
    add_back,
    mix_three,
    mix_tile,
    rows2,
    rows4,
    rows8,
    rows16,
    signed,
    turn,
    turn_back,
    turn_columns,
)
from tightwire.codecs.kernels import STEP
from tightwire.codecs.sixteen import LANES
from tightwire.wire.words import add32, mul32, shl32, shr32, xor32

Edges = npt.NDArray[np.int64]
"""Where blocks begin, and behind them where the last one ends."""

SIGNS = TILE
"""Words of signs for a block: the sign of value i is bit i // 256 of word i % 256."""
WORDS = 2 * SIGNS
"""Random words that a step may take: for a reflection, or for both steps of a full block."""
STEPS = 9
"""Rows of random words that a block may take: up to eight for its steps, and one for `start`."""
HEADROOM = np.float32(2.0**-16)
"""What values are multiplied by before an inverse, so that nothing overflows."""
OF_BLOCK = np.float32(2.0**-6)
"""What makes a step of a full block orthonormal."""


def whole(n: int) -> int:
    """The largest length up to `n`, 1 or more, that one step can rotate: two significant bits."""
    spare = max(n.bit_length() - 2, 0)
    return n >> spare << spare


def edges(n: int) -> Edges:
    """The blocks of `n` values: all of 2**12 but the last two, which share what is left about evenly."""
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


@numba.njit(cache=True, nogil=True)
def transform(values):  # type: ignore[no-untyped-def]  # numba infers the types
    """Multiply `values`, in place, by the Hadamard matrix in Sylvester's order, not normalised.

    They are a power of two, up to `BLOCK`.
    """
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
    for at in range(0, n, TILE):
        mix_tile(values, at)
    for at in range(0, TILE if n > TILE else 0, LANES):
        if n == 2 * TILE:
            rows2(values, at, TILE)
        elif n == 4 * TILE:
            rows4(values, at, TILE)
        elif n == 8 * TILE:
            rows8(values, at, TILE)
        else:
            rows16(values, at, TILE)


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
            mix_three(values, at, length)
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
        steps = 5 if rows == 3 else 4 if n < TILE else 3
    else:
        steps = 1
    return length, rows, steps, np.float32(1 / np.sqrt(np.float64(length // rows)))


@numba.njit(cache=True, nogil=True, inline="always")
def _place(block, step):  # type: ignore[no-untyped-def]  # numba infers the types
    """Where the counter of a step's random words begins."""
    return mul32(np.uint32((block * STEPS + step) * WORDS), STEP)


@numba.njit(cache=True, nogil=True)
def start(n, block, k0, k1):  # type: ignore[no-untyped-def]  # numba infers the types
    """A random one of the `n` places of a block."""
    word = np.empty(1, np.uint32)
    _draw(word, _place(block, STEPS - 1), k0, k1)
    return np.int64(np.uint64(word[0]) * np.uint64(n) >> np.uint64(32))


@numba.njit(cache=True, nogil=True)
def _middle(values, words, scale):  # type: ignore[no-untyped-def]  # numba infers the types
    """The last butterflies of a full block's first step, its new signs, and the first butterflies of the second."""
    minus = scale * np.float32(0) - np.float32(1)  # what no compiler can know: it would subtract, on half as many units
    for at in range(0, TILE, LANES):
        turn_columns(values, words, at, minus)


@numba.njit(cache=True, nogil=True)
def rotate(values, out, scale, block, thorough, k0, k1):  # type: ignore[no-untyped-def]  # numba infers the types
    """Rotate `values`, times `scale`, to `out`; they are block number `block` of at most 2**12 values."""
    n = values.size
    words = np.empty(WORDS, np.uint32)
    if n == BLOCK:
        factor = OF_BLOCK * OF_BLOCK if thorough else OF_BLOCK
        _draw(words[: SIGNS << thorough], _place(block, 0), k0, k1)
        for tile in range(BLOCK // TILE):
            turn(values, out, words, tile, scale * factor)
        if thorough:
            _middle(out, words[SIGNS:], scale)
            for at in range(0, BLOCK, TILE):
                mix_tile(out, at)
        else:
            for at in range(0, TILE, LANES):
                rows16(out, at, TILE)
        return
    length, rows, steps, factor = _plan(n, thorough)
    for at in range(length, n):
        out[at] = values[at] * scale
    for step in range(steps):
        first = (n - length) * (step & 1)
        part = out[first : first + length]
        _draw(words[: 2 * length if n < TILE else SIGNS], _place(block, step), k0, k1)
        if step:
            _flip(part, words, factor)
        else:
            _sign(values[:length], part, words, factor * scale)
        if thorough and n < TILE:
            _reflect(part, words[length:])
        _mix(part, rows)


@numba.njit(cache=True, nogil=True)
def unrotate(values, room, scale, block, thorough, k0, k1, out, weight, added, begun):  # type: ignore[no-untyped-def]  # numba infers the types
    """The inverse of `rotate`, times `room`, times `scale`, and limited to float32's range.

    It goes to `out`, or times `weight` is added to what is there. `values` are overwritten. If a thorough inverse of a
    full block has `begun`, the butterflies of each tile are done.
    """
    n = values.size
    words = np.empty(WORDS, np.uint32)
    if n == BLOCK:
        factor = OF_BLOCK * OF_BLOCK if thorough else OF_BLOCK
        _draw(words[: SIGNS << thorough], _place(block, 0), k0, k1)
        if thorough:
            for at in range(0, 0 if begun else BLOCK, TILE):
                mix_tile(values, at)
            _middle(values, words[SIGNS:], scale)
        else:
            for at in range(0, TILE, LANES):
                rows16(values, at, TILE)
        for tile in range(BLOCK // TILE):
            if added:
                add_back(values, out, words, tile, room * factor, scale, weight)
            else:
                turn_back(values, out, words, tile, room * factor, scale, weight)
        return
    length, rows, steps, factor = _plan(n, thorough)
    for back in range(steps):
        step = steps - 1 - back
        first = (n - length) * (step & 1)
        part = values[first : first + length]
        _draw(words[: 2 * length if n < TILE else SIGNS], _place(block, step), k0, k1)
        _mix(part, rows)
        if thorough and n < TILE:
            _reflect(part, words[length:])
        _flip(part, words, factor if step else factor * room)
    for at in range(length, n):
        values[at] *= room
    for at in range(n):
        value = _limited(values[at] * scale)
        out[at] = out[at] + value * weight if added else value


@numba.njit(cache=True, nogil=True)
def rotate_blocks(values, edges, scale, k0, k1, out):  # type: ignore[no-untyped-def]  # numba infers the types
    """Rotate every block of `values`, times `scale`, to `out`, in one step each where its length allows."""
    once = np.bool_(False)  # numba would compile `rotate` anew for a literal
    for block in range(edges.size - 1):
        first, last = edges[block], edges[block + 1]
        rotate(values[first:last], out[first:last], scale, block, once, k0, k1)


@numba.njit(cache=True, nogil=True)
def unrotate_blocks(values, edges, scale, k0, k1, out, weight, added):  # type: ignore[no-untyped-def]  # numba infers the types
    """The inverse of `rotate_blocks`, whatever the finite `values`; what leaves float32's range is limited to it.

    It goes to `out`, or times `weight` is added to what is there.
    """
    buffer, once = np.empty(BLOCK, np.float32), np.bool_(False)
    for block in range(edges.size - 1):
        part, into = values[edges[block] : edges[block + 1]], out[edges[block] : edges[block + 1]]
        here = buffer[: part.size]
        for at in range(part.size):
            here[at] = part[at] * HEADROOM
        unrotate(here, np.float32(1.0) / HEADROOM, scale, block, once, k0, k1, into, weight, added, once)


def keys(seed: int) -> tuple[np.uint32, np.uint32]:
    """Both keys of the signs, from a seed of 32 bits."""
    return np.uint32(seed), np.uint32((seed * 0x85EBCA6B + 0xC2B2AE35) % 2**32)


def added(weight: np.float32 | None) -> tuple[np.float32, bool]:
    """The last arguments of `unrotate`, for a target of that weight."""
    return (np.float32(1.0), False) if weight is None else (weight, True)
