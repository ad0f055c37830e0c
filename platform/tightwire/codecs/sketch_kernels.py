"""The hot loops of the count sketch, compiled by numba; `tests/unit/test_codecs_sketch.py` holds plain NumPy twins."""

from typing import Any

import numba
import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from tightwire.arrays import Flat
from tightwire.codecs.sparse_kernels import GOLDEN, LARGEST, mix64

RUN = 16
"""Values that lie side by side in each row of a sketch: a cache line of them, with one hash."""
_WIDTH = 16 * RUN
"""Values that are estimated together."""


@numba.njit(cache=True, nogil=True, inline="always")
def _hash(key, run, columns):  # type: ignore[no-untyped-def]  # numba infers the types
    """(the column where a run starts, the sign bits of its values): a keyed mix of the run's number."""
    x = mix64(key + np.uint64(run) * GOLDEN)
    return (x >> np.uint64(32)) * columns >> np.uint64(32), np.uint32(x & np.uint64(0xFFFF))


def _signed(context: Any, builder: Any, array: Any, at: Any, kind: Any, bits: Any) -> Any:  # llvmlite has no types
    """A run of float32 from array[at:], each with its sign flipped where its bit is set, the lowest bit first."""
    words = ir.VectorType(ir.IntType(32), RUN)
    place = _place(context, builder, array, at, kind, words)
    splat = ir.Constant(words, [0] * RUN)
    for lane in range(RUN):
        splat = builder.insert_element(splat, bits, ir.Constant(ir.IntType(32), lane))
    flips = builder.shl(splat, ir.Constant(words, [31 - lane for lane in range(RUN)]))
    flips = builder.and_(flips, ir.Constant(words, [0x80000000] * RUN))
    flipped = builder.xor(builder.load(place, align=4), flips)
    return builder.bitcast(flipped, ir.VectorType(ir.FloatType(), RUN))


def _place(context: Any, builder: Any, array: Any, at: Any, kind: Any, vector: Any) -> Any:
    """A pointer to array[at:] as a vector."""
    data = context.make_array(kind)(context, builder, array).data
    return builder.bitcast(builder.gep(data, [at]), vector.as_pointer())


@intrinsic
def _add(typingctx, sums, column, values, at, bits):  # type: ignore[no-untyped-def]  # noqa: ARG001 - as numba wants it
    """Add the run values[at:], signed, to sums[column:]; a loop of so few would not be vectorised."""

    def codegen(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
        into, column, source, at, bits = arguments
        run = _signed(context, builder, source, at, signature.args[2], bits)
        align = sums.dtype.bitwidth // 8
        vector = ir.VectorType(ir.DoubleType() if align == 8 else ir.FloatType(), RUN)
        if align == 8:
            run = builder.fpext(run, vector)
        place = _place(context, builder, into, column, signature.args[0], vector)
        builder.store(builder.fadd(builder.load(place, align=align), run), place, align=align)
        return context.get_dummy_value()

    return types.void(sums, types.uint64, values, types.uint64, types.uint32), codegen


_add_run: Any = _add  # its first argument is numba's, which mypy cannot know


@intrinsic
def _take(typingctx, table, column, bits, out, at):  # type: ignore[no-untyped-def]  # noqa: ARG001 - as numba wants it
    """Write the run table[column:], signed, to out[at:]."""

    def codegen(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
        source, column, bits, into, at = arguments
        run = _signed(context, builder, source, column, signature.args[0], bits)
        builder.store(run, _place(context, builder, into, at, signature.args[3], run.type), align=4)
        return context.get_dummy_value()

    return types.void(table, types.uint64, types.uint32, out, types.uint64), codegen


_take_run: Any = _take  # likewise


@numba.njit(cache=True, nogil=True)
def _sketch(values, keys, sums, table):  # type: ignore[no-untyped-def]  # numba infers the types
    rows, columns = table.shape
    whole = values.size // RUN
    rest = np.zeros(RUN, np.float32)
    rest[: values.size - whole * RUN] = values[whole * RUN :]
    for row in range(rows):
        sums[:] = sums.dtype.type(0)
        for run in range(whole):
            start, bits = _hash(keys[row], run, np.uint64(columns))
            _add_run(sums, start, values, np.uint64(run * RUN), bits)
        start, bits = _hash(keys[row], whole, np.uint64(columns))
        _add_run(sums, start, rest, np.uint64(0), bits)
        for column in range(RUN):
            sums[column] += sums[columns + column]
        for column in range(columns):
            table[row, column] = np.float32(min(max(sums[column], -LARGEST), LARGEST))


def sketch(values: Flat, keys: list[int], columns: int, peak: float) -> Flat:
    """The table of a count sketch, shape (rows, columns), cut to what is finite.

    Args:
        values: Shape (n,), contiguous.
        keys: One a row, 64 bits.
        columns: `RUN` to 2**31.
        peak: The largest magnitude; sums are in float64 where float32 might overflow.
    """
    table = np.empty((len(keys), columns), np.float32)
    safe = peak * (values.size / RUN + 2) < float(LARGEST)
    sums = np.empty(columns + RUN, np.float32 if safe else np.float64)
    _sketch(values, np.array(keys, np.uint64), sums, table)
    return table


@numba.njit(cache=True, nogil=True)
def _sort(found, rows):  # type: ignore[no-untyped-def]  # numba infers the types
    for turn in range(rows):
        for row in range(turn & 1, rows - 1, 2):
            upper = found[row * _WIDTH : (row + 1) * _WIDTH]
            lower = found[(row + 1) * _WIDTH : (row + 2) * _WIDTH]
            for lane in range(_WIDTH):
                small, large = min(upper[lane], lower[lane]), max(upper[lane], lower[lane])
                upper[lane] = small
                lower[lane] = large


@numba.njit(cache=True, nogil=True)
def _estimate(table, rows, columns, keys, median, out):  # type: ignore[no-untyped-def]  # numba infers the types
    share = np.float32(1) / np.float32(rows)
    half = np.float32(0.5)
    found = np.zeros(rows * _WIDTH, np.float32)
    result = np.empty(_WIDTH, np.float32)
    for first in range(0, out.size, _WIDTH):
        size = min(_WIDTH, out.size - first)
        for row in range(rows):
            base = np.uint64(row) * np.uint64(columns + RUN)
            for run in range((size + RUN - 1) // RUN):
                start, bits = _hash(keys[row], first // RUN + run, np.uint64(columns))
                _take_run(table, base + start, bits, found, np.uint64(row * _WIDTH + run * RUN))
        if median:
            _sort(found, rows)
            upper = found[(rows - 1 >> 1) * _WIDTH : ((rows - 1 >> 1) + 1) * _WIDTH]
            lower = found[(rows >> 1) * _WIDTH : ((rows >> 1) + 1) * _WIDTH]
            for lane in range(_WIDTH):
                result[lane] = upper[lane] * half + lower[lane] * half
        else:
            result[:] = np.float32(0)
            for row in range(rows):
                part = found[row * _WIDTH : (row + 1) * _WIDTH]
                for lane in range(_WIDTH):
                    result[lane] += part[lane] * share
        into = out[first : first + size]
        for lane in range(size):
            into[lane] = min(max(result[lane], -LARGEST), LARGEST)


def estimate(table: Flat, keys: list[int], median: bool, out: Flat) -> None:
    """Write to `out`, shape (n,), what a table of shape (rows, columns) says of the values that it was made of."""
    wide = np.concatenate([table, table[:, :RUN]], axis=1)
    rows, columns = table.shape
    _estimate(wide.reshape(-1), rows, columns, np.array(keys, np.uint64), median, out)
