"""QSGD's two ways to write codes in an Elias code E, gamma or omega.

* dense: E(|d| + 1) for each distance d from the zero, and a sign bit behind it unless d = 0;
* sparse: for each code that is not the zero E(gap), the gap being 1 from one to the next, E(|d|) and a sign bit.

Where the zero is code 0 there are no signs, and no bits for them. Alistarh et al. 2017, "QSGD", arXiv 1610.02132,
section 3.2 and appendix A. The tables hold the form, for the sparse one how many codes are not zero, and the length.
"""

from collections.abc import Iterator

from tightwire.wire import modes, prefix, runs
from tightwire.wire.forms import Form, Reading, Values
from tightwire.wire.prefix import GAMMA, OMEGA, Alphabet, Code
from tightwire.wire.streams import Source, varint

MODES = {
    GAMMA: (modes.ELIAS_GAMMA_DENSE, modes.ELIAS_GAMMA_SPARSE),
    OMEGA: (modes.ELIAS_OMEGA_DENSE, modes.ELIAS_OMEGA_SPARSE),
}
"""First bytes of both forms, by code."""


def _bits(values: Values, code: Code, alphabet: Alphabet) -> int:
    """Bits of all codes that the alphabet has."""
    used = values.counts > 0
    if alphabet.first:
        used[alphabet.zero] = False
    return int(prefix.lengths(code, alphabet)[used] @ values.counts[used])


def forms(values: Values, kind: int) -> Iterator[Form]:
    """Both forms, the sparse one only where it may be the smaller."""
    code, (dense, sparse) = Code(kind), MODES[kind]
    every, others = (Alphabet(values.zero, values.top, first) for first in (0, 1))
    bits = _bits(values, code, every)
    yield Form(bytes([dense]), bits, lambda: prefix.write(values.codes, code, every, bits))
    k = values.codes.size - int(values.counts[values.zero])
    value_bits = _bits(values, code, others)
    if value_bits + k < bits:
        some = values.others(values.zero)
        total = value_bits + runs.elias_bits(kind, some)
        yield Form(bytes([sparse]) + varint(k), total, lambda: runs.write(some, code, code, others, total))


def read(kind: int, sparse: bool, n: int, zero: int, top: int, source: Source) -> Reading:
    """What comes behind the first byte of one of the `forms`, for `n` codes up to `top`.

    Raises:
        FrameError: ``length`` for what cannot be, or ``truncated``.
    """
    code, alphabet = Code(kind), Alphabet(zero, top, int(sparse))
    if sparse:
        k = runs.read_count(n, source)
        return Reading(source.varint(), lambda data: runs.read_stream(data, n, k, code, code, alphabet))
    return Reading(source.varint(), lambda data: prefix.read(data, n, code, alphabet))
