"""Sixteen lanes at a time with a table of sixteen floats: what a processor that shuffles 512 bits does in a few steps.

LLVM makes no such shuffle of a loop over lanes. Processors without AVX-512 have `WIDE` false and must not call
`shuffle`, `look_up16` and `search16`; their callers have a loop of their own then, which also does the lanes that fill
no sixteen, with the same results.
"""

from typing import Any, Final

from llvmlite import ir
from numba import config, types
from numba.core.codegen import get_host_cpu_features
from numba.extending import intrinsic

LANES: Final = 16
_CHOSEN: str | None = getattr(config, "CPU_FEATURES", None)  # numba sets its attributes as it starts
_FEATURES = get_host_cpu_features() if _CHOSEN is None else _CHOSEN  # type: ignore[no-untyped-call]  # numba's
WIDE: Final = "+avx512f" in _FEATURES.split(",")
"""Whether this processor can run them, and numba compiles for it."""
FUSED: Final = not {"+fma", "+neon"}.isdisjoint(_FEATURES.split(","))
"""Whether it multiplies and adds in one instruction, to the last bit."""

WORD, REAL = ir.IntType(32), ir.FloatType()
WORDS, REALS = ir.VectorType(WORD, LANES), ir.VectorType(REAL, LANES)


def _at(context: Any, builder: Any, array_type: Any, array: Any, at: Any, vector: Any) -> Any:  # numba has no types
    """Where sixteen entries of a contiguous array of 32-bit entries begin, the first of which is number `at`."""
    data = context.make_array(array_type)(context, builder, array).data
    return builder.bitcast(builder.gep(data, [at]), vector.as_pointer())


def splat(kind: Any, value: Any) -> Any:
    """A constant vector of one value."""
    return ir.Constant(ir.VectorType(kind, LANES), [ir.Constant(kind, value)] * LANES)


def spread(builder: Any, value: Any, vector: Any) -> Any:
    """A vector of one value, which only the program knows."""
    none = ir.Constant(vector, ir.Undefined)
    first = builder.insert_element(none, value, ir.Constant(ir.IntType(32), 0))
    return builder.shuffle_vector(first, none, splat(WORD, 0))


def shuffle(builder: Any, table: Any, places: Any) -> Any:
    """Code for table[places & 15], lane by lane: of sixteen floats, at sixteen places."""
    kind = ir.FunctionType(REALS, [REALS, WORDS])
    permute = builder.module.declare_intrinsic("llvm.x86.avx512.permvar.sf.512", fnty=kind)
    return builder.call(permute, [table, places])


def fma(builder: Any, left: Any, right: Any, more: Any) -> Any:
    """Code for left * right + more, lane by lane, rounded once; slow where the processor is not `FUSED`."""
    kind = ir.FunctionType(REALS, [REALS] * 3)
    return builder.call(builder.module.declare_intrinsic("llvm.fma.v16f32", fnty=kind), [left, right, more])


def _load(context: Any, builder: Any, signature: Any, arguments: Any, which: int, at: Any, vector: Any) -> Any:
    return builder.load(_at(context, builder, signature.args[which], arguments[which], at, vector), align=4)


@intrinsic
def _look_up(typingctx, table, words, start, shift, weight, out):  # type: ignore[no-untyped-def]  # noqa: ARG001 - numba's interface
    def codegen(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
        at, zero = arguments[2], context.get_constant(types.intp, 0)
        entries = _load(context, builder, signature, arguments, 0, zero, REALS)
        word = _load(context, builder, signature, arguments, 1, at, WORDS)
        found = shuffle(builder, entries, builder.lshr(word, spread(builder, arguments[3], WORDS)))
        into = _at(context, builder, signature.args[5], arguments[5], at, REALS)
        if signature.args[4] is not types.none:
            product = builder.fmul(found, spread(builder, arguments[4], REALS))
            found = builder.fadd(builder.load(into, align=4), product)
        builder.store(found, into, align=4)
        return context.get_dummy_value()

    return types.none(table, words, types.intp, types.uint32, weight, out), codegen


@intrinsic
def _search(typingctx, thresholds, values, start, shift, out):  # type: ignore[no-untyped-def]  # noqa: ARG001 - as above
    def codegen(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
        at, zero = arguments[2], context.get_constant(types.intp, 0)
        edges = _load(context, builder, signature, arguments, 0, zero, REALS)
        x = _load(context, builder, signature, arguments, 1, at, REALS)
        code = splat(WORD, 0)
        for step in (8, 4, 2, 1):  # as many edges as `code` are known to be below x
            edge = shuffle(builder, edges, builder.add(code, splat(WORD, step - 1)))
            above = builder.fcmp_ordered(">", x, edge)
            code = builder.select(above, builder.or_(code, splat(WORD, step)), code)
        into = _at(context, builder, signature.args[4], arguments[4], at, WORDS)
        shift = arguments[3]
        begun = builder.icmp_unsigned("!=", shift, ir.Constant(shift.type, 0))
        before = builder.and_(builder.load(into, align=4), spread(builder, builder.sext(begun, shift.type), WORDS))
        builder.store(builder.or_(before, builder.shl(code, spread(builder, shift, WORDS))), into, align=4)
        return context.get_dummy_value()

    return types.none(thresholds, values, types.intp, types.uint32, out), codegen


look_up16: Any = _look_up  # its first argument is numba's, which mypy cannot know
"""look_up16(table, words, start, shift, weight, out), for sixteen i from `start` on: out[i] = table[words[i] >> shift].

Of the places only the lowest four bits count. With a weight that is not None, it is out[i] += that times weight, each
rounded. All arrays are contiguous; `table`, shape (16,), `weight` and `out` are float32, `words` and `shift` uint32.
"""
search16: Any = _search  # likewise
"""search16(thresholds, values, start, shift, out): how many thresholds are below values[i], for sixteen i from `start`.

That is shifted left and put to out[i], on top of what is there where the shift is not 0. All arrays are contiguous;
`thresholds`, shape (16,), are in order, the last is not looked at; they and `values` are float32, `out` is uint32.
"""
