"""Runs of one code: how many of it lie before each other code, and those codes, in one stream of bits.

The code that runs is the most frequent one, the base. Each code that differs is written as the codeword of the run in
front of it, in gamma or Rice's code, whichever is shorter, and behind it Rice's codeword of its rank by distance from
the base; what follows the last of them is a run to the end, and not written. The tables hold the base, the number of
codes that differ, both codes' parameters, and the length. Golomb 1966, "Run-length encodings".
"""

from collections.abc import Iterator
from functools import lru_cache

import numba
import numpy as np

from tightwire.arrays import Bytes8, Ints
from tightwire.errors import FrameError
from tightwire.wire import golomb, modes
from tightwire.wire.forms import POWERS, Form, Others, Reading, Values
from tightwire.wire.packing import Codes
from tightwire.wire.prefix import (
    BURST,
    GAMMA,
    RICE,
    WINDOW,
    Alphabet,
    Code,
    Words,
    blank,
    codeword,
    codewords,
    ended,
    finished,
    lookup,
    opened,
    put,
    take,
    take_code,
    window,
)
from tightwire.wire.streams import Source, varint

_SHORT = Alphabet(0, (1 << WINDOW) - 1, 0)
"""Runs that are looked up."""


@numba.njit(cache=True, nogil=True)
def _write(runs, codes, run_code, run_words, entries, words):  # type: ignore[no-untyped-def]  # numba infers the types
    at, pending, filled = np.uint64(0), np.uint64(0), np.uint64(0)
    six, low = np.uint64(6), np.uint64(63)
    for i in range(codes.size):
        run, entry = runs[i], entries[codes[i]]
        if run < run_words.size:
            word, length = run_words[run] >> six, run_words[run] & low
        else:
            word, length = codeword(run_code, np.uint64(run))
        if length + (entry & low) < np.uint64(64):
            word |= (entry >> six) << length
            at, pending, filled = put(words, at, pending, filled, word, length + (entry & low))
        else:
            at, pending, filled = put(words, at, pending, filled, word, length)
            at, pending, filled = put(words, at, pending, filled, entry >> six, entry & low)
    words[at] = pending


@numba.njit(cache=True, nogil=True)
def _read(words, end, k, run_code, run_codes, run_info, code, alphabet, codes, info, out):  # type: ignore[no-untyped-def]  # numba infers the types
    """Put `k` codes into `out`; the bits used, or -1 where a codeword is impossible or a code lies beyond the end."""
    at, end, place = np.uint64(0), np.uint64(end), np.int64(-1)
    mask, byte = np.uint64((1 << WINDOW) - 1), np.uint64(255)
    for _ in range(k):
        if at > end:
            return -1
        view = window(words, at)
        entry = np.uint64(run_info[view & mask])
        if entry >> np.uint64(16):
            run, used = np.int64(run_codes[(view & mask) * np.uint64(BURST)]), entry & byte
            view >>= used
        else:
            run, used = take(run_code, view)
            if run < 0:
                return -1
            view = window(words, at + used)
        at += used
        place += run + 1
        if place >= out.size:
            return -1
        entry = np.uint64(info[view & mask])
        if entry >> np.uint64(16):
            out[place] = codes[(view & mask) * np.uint64(BURST)]
            at += entry & byte
        else:
            found, used = take_code(code, alphabet, window(words, at))
            if found < 0:
                return -1
            out[place] = found
            at += used
    return np.int64(at)


@lru_cache
def _elias_lengths(kind: int) -> Ints:
    """Bits of the Elias codeword of a run, by floor(log2(run + 1))."""
    return np.array([int(codeword(Code(kind), np.uint64((1 << power) - 1))[1]) for power in range(POWERS)])


def elias_bits(kind: int, some: Others) -> int:
    """Bits of the Elias codes of all runs."""
    return int(_elias_lengths(kind) @ some.histograms.powers)


def write(some: Others, run_code: Code, code: Code, alphabet: Alphabet, bits: int) -> Bytes8:
    """The stream of the codes that differ, `bits` bits as its codewords add up to."""
    words: Words = blank(bits)
    _write(some.runs, some.codes, run_code, codewords(run_code, _SHORT), codewords(code, alphabet), words)
    return finished(words, bits)


def read_stream(data: Bytes8, n: int, k: int, run_code: Code, code: Code, alphabet: Alphabet) -> Codes:
    """The inverse of `write`: `n` codes, all but `k` of them the alphabet's zero, from all of `data`.

    Raises:
        FrameError: ``codes`` where that is no such stream.
    """
    out = np.full(n, alphabet.zero, np.uint32)
    runs, found = lookup(run_code, _SHORT), lookup(code, alphabet)
    bits = _read(opened(data), data.size * 8, k, run_code, *runs, code, alphabet, *found, out)
    if bits < 0 or not ended(data, bits):
        raise FrameError("codes", f"{data.size} coded bytes are not {k} runs in {n} codes and what ends them")
    return out


def read_count(n: int, source: Source) -> int:
    """How many of `n` codes differ.

    Raises:
        FrameError: ``length`` when these are more than all.
    """
    k = source.varint()
    if k > n:
        raise FrameError("length", f"{k} of {n} codes differ from the one that runs")
    return k


def forms(values: Values) -> Iterator[Form]:
    """The one form there is, if any code differs from another or not."""
    base = int(values.counts.argmax())
    alphabet = Alphabet(base, values.top, 1)
    code, bits = golomb.best(golomb.ranked(values, alphabet))
    if bits >= 8 * values.packed:
        return
    some = values.others(base)
    run_code, run_bits = golomb.best(some.histograms.counts, some.histograms.shift)
    if (elias := elias_bits(GAMMA, some)) < run_bits:
        run_code, run_bits = Code(GAMMA), elias
    total = bits + run_bits
    head = bytes([modes.RUNS]) + varint(base) + varint(some.codes.size) + golomb.pack(run_code) + golomb.pack(code)
    yield Form(head, total, lambda: write(some, run_code, code, alphabet, total))


def read(n: int, top: int, source: Source) -> Reading:
    """What comes behind the first byte of `forms`, for `n` codes up to `top`.

    Raises:
        FrameError: ``tables`` or ``length`` for what cannot be, or ``truncated``.
    """
    base = golomb.read_base(top, source)
    k = read_count(n, source)
    run_code, code = golomb.read_code(source), golomb.read_code(source)
    if code.kind != RICE:
        raise FrameError("tables", "codes that differ are written in another code than Rice's")
    alphabet = Alphabet(base, top, 1)
    return Reading(source.varint(), lambda data: read_stream(data, n, k, run_code, code, alphabet))
