"""Word operations for numba kernels: 32-bit arithmetic, counting bits, and words at any address.

Numba widens what it computes from two uint32 to 64 bits, which halves what a SIMD register holds; these do not.
"""

from collections.abc import Callable
from typing import Any

from numba import types
from numba.extending import intrinsic


def _binary(emit: Callable[[Any, Any, Any], Any]) -> Any:  # numba and llvmlite have no types
    @intrinsic
    def operation(typingctx, left, right):  # type: ignore[no-untyped-def]  # noqa: ARG001 - as above
        def codegen(context, builder, signature, arguments):  # type: ignore[no-untyped-def]  # noqa: ARG001 - as above
            return emit(builder, *arguments)

        return types.uint32(types.uint32, types.uint32), codegen

    return operation


mul32 = _binary(lambda builder, left, right: builder.mul(left, right))
"""Product modulo 2**32."""
add32 = _binary(lambda builder, left, right: builder.add(left, right))
"""Sum modulo 2**32."""
xor32 = _binary(lambda builder, left, right: builder.xor(left, right))
"""left ^ right."""
shl32 = _binary(lambda builder, left, right: builder.shl(left, right))
"""left << right, for right < 32."""
shr32 = _binary(lambda builder, left, right: builder.lshr(left, right))
"""left >> right, for right < 32."""


@intrinsic
def _ones64(typingctx, word):  # type: ignore[no-untyped-def]  # noqa: ARG001 - as above
    def codegen(context, builder, signature, arguments):  # type: ignore[no-untyped-def]  # noqa: ARG001 - as above
        return builder.ctpop(*arguments)

    return types.uint64(types.uint64), codegen


ones64: Any = _ones64  # its first argument is numba's, which mypy cannot know
"""How many bits of a uint64 are set."""


def _loaded(kind: Any) -> Any:  # likewise
    @intrinsic
    def load(typingctx, data, at):  # type: ignore[no-untyped-def]  # noqa: ARG001 - as above
        def codegen(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
            memory = context.make_array(signature.args[0])(context, builder, arguments[0]).data
            words = builder.bitcast(memory, context.get_value_type(kind).as_pointer())
            return builder.load(builder.gep(words, [arguments[1]]), align=1)

        return kind(data, types.intp), codegen

    return load


load16 = _loaded(types.uint16)
"""load16(data, at): the uint16 at byte 2 * at of contiguous uint8, which may lie at any address."""
load32 = _loaded(types.uint32)
"""load32(data, at): the uint32 at byte 4 * at, likewise."""
