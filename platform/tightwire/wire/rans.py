"""Entropy coding of codes with interleaved rANS, under histograms of theirs or a model that learns on the way.

Codes come in one stretch or several, each with statistics of its own. In the section ``tables`` the first byte says how
they are coded: 0 means that all of them stay packed. From 1 to 0xBF it begins the table of the first stretch
(`tightwire.wire.rans_tables`); for each stretch more there follows another, or the byte `_AGAIN` for the one before it
once more. `_ADAPTIVE` + log2 of the lanes stands for models that learn (`tightwire.wire.rans_adaptive`), `_WHOLE` more
if they see all bits of a code. Next comes the number of coded bytes: as it is behind such a model; behind tables, what
it is beyond the number that they let expect, twice, or if less, one less than twice what is missing. Under tables the
number of lanes follows from that expectation as well. Last, of several lanes, is the number of codes that their first
states hold. The coded bytes are the coder's last states (`tightwire.wire.rans_states`) and its words
(`tightwire.wire.rans_kernels`).
"""

from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import numpy as np

from tightwire.arrays import AnyArray, Bytes8
from tightwire.errors import FrameError
from tightwire.wire import rans_adaptive as adaptive
from tightwire.wire import rans_kernels as kernels
from tightwire.wire import rans_states as states_of
from tightwire.wire.rans_tables import MAX_BITS, Table, count
from tightwire.wire.streams import Sink, Source, varint

Model = Literal["static", "adaptive"]

_ADAPTIVE = 0xC0
_WHOLE = 8
_AGAIN = 0xD0


@dataclass(frozen=True, slots=True)
class Coded:
    """What is known before the coded bytes are there."""

    length: int
    """Of the coded bytes."""
    lanes: int
    tail: int
    """Codes at the end that are held by the states which the other codes were pushed onto."""
    bounds: tuple[int, ...]
    """Where stretches start, and the last one ends."""
    tables: tuple[Table, ...]
    """Of each stretch; none for models that learn."""
    form: adaptive.Form | None
    """Of models that learn."""


def _bounds(n: int, parts: tuple[int, ...]) -> tuple[int, ...]:
    """Starts of the stretches that are not empty, and the end of the last."""
    bounds = [0]
    for part in parts or (n,):
        if part:
            bounds.append(bounds[-1] + part)
    return tuple(bounds)


def write(
    codes: AnyArray, bits: int, packed: int, sink: Sink, parts: tuple[int, ...] = (), model: Model = "static"
) -> Bytes8 | None:
    """Code `codes`, and write what the decoder must know before to the section ``tables``.

    Args:
        codes: Shape (n,), n > 0, integers below 2**bits, uint8 up to 8 bits and uint16 beyond.
        bits: 1 to `MAX_BITS`.
        packed: Bytes the codes take without entropy coding.
        sink: Where the tables go.
        parts: Lengths of stretches with statistics of their own, which add up to n; empty for one.
        model: Histograms, or one that learns.

    Returns:
        The coded bytes, or None when packing is not larger; then one zero byte was written.
    """
    head, coded = (_static if model == "static" else _learning)(codes, bits, packed, _bounds(codes.size, parts))
    if coded is not None and len(head) + coded.size < packed:
        sink.write("tables", head)
        return coded
    sink.write("tables", b"\0")
    return None


def _static(codes: AnyArray, bits: int, packed: int, bounds: tuple[int, ...]) -> tuple[bytes, Bytes8 | None]:
    """(what the decoder must know before, coded bytes), None where they would be longer than packed."""
    tables, head, expected = _choose(codes, bits, bounds)
    if expected >= packed * 8:
        return b"", None
    typical = _typical(tables, bounds)
    lanes = states_of.lanes_for(codes.size, typical)
    memory, words = states_of.buffer(packed)
    encodings = [table.encoding() for table in tables]
    states, tail = states_of.start(codes, bounds[-2], bounds[-1], tables[-1], encodings[-1], lanes)
    push = kernels.push_one if lanes == 1 else kernels.push
    at, stop = words.size, codes.size - tail
    for position in reversed(range(len(tables))):
        table, start, end = tables[position], bounds[position], min(stop, bounds[position + 1])
        at = push(codes, start, end, encodings[position], table.precision, table.group, states, words, at)
        if at < 0:
            return b"", None
    coded = states_of.pack(states, memory, words.size - at)
    beyond = coded.size - typical // 8
    head += varint(2 * beyond if beyond >= 0 else -2 * beyond - 1)
    return head + varint(tail) if lanes > 1 else head, coded


def _typical(tables: list[Table], bounds: tuple[int, ...]) -> int:
    """Bits of codes as the tables of their stretches let expect them."""
    return sum(table.typical(stop - start) for table, (start, stop) in zip(tables, pairwise(bounds), strict=True))


def _choose(codes: AnyArray, bits: int, bounds: tuple[int, ...]) -> tuple[list[Table], bytes, int]:
    """A table for each stretch, their bytes, and the bits of all with the codes; one for all if that is shorter."""
    counts = [count(codes[start:stop], bits) for start, stop in pairwise(bounds)]
    table, written, bits_of_all = Table.best(np.sum(counts, axis=0), bits)
    again = len(counts) - 1
    pooled = [table] * len(counts), written + bytes([_AGAIN] * again), bits_of_all + 8 * again
    if not again:
        return pooled
    tables: list[Table] = []
    head, total = b"", 0
    for own in counts:
        table, written, size = Table.best(own, bits)
        same = tables[-1].cost(own) if tables else None
        if same is not None and same + 8 <= size:
            table, size = tables[-1], same + 8
            written = bytes([_AGAIN])
        head += written
        tables.append(table)
        total += size
    return (tables, head, total) if total < pooled[2] else pooled


def _learning(codes: AnyArray, bits: int, packed: int, bounds: tuple[int, ...]) -> tuple[bytes, Bytes8 | None]:
    """As `_static`."""
    whole = adaptive.whole_pays(codes, bits)
    learnt = [adaptive.learn(codes[start:stop], bits, whole) for start, stop in pairwise(bounds)]
    expected = sum(model.cost for model in learnt)
    if expected >= packed * 8:
        return b"", None
    lanes = states_of.lanes_for(codes.size, expected)
    memory, words = states_of.buffer(packed)
    last = learnt[-1].last
    low = codes.size - adaptive.last_block(bounds[-1] - bounds[-2], learnt[-1].form) + 1
    states, tail = states_of.start(codes, low, codes.size, last, last.encoding(), lanes)
    at, stop = words.size, codes.size - tail
    for model, (start, end) in zip(reversed(learnt), reversed(list(pairwise(bounds))), strict=True):
        at = adaptive.push(codes, start, min(stop, end), end, model, states, words, at)
        if at < 0:
            return b"", None
    coded = states_of.pack(states, memory, words.size - at)
    head = bytes([_ADAPTIVE + _WHOLE * whole + lanes.bit_length() - 1]) + varint(coded.size)
    return head + varint(tail) if lanes > 1 else head, coded


def read(n: int, bits: int, source: Source, parts: tuple[int, ...] = ()) -> Coded | None:
    """The inverse of `write`, but for the coded bytes; None for codes that stayed packed.

    Args:
        n: Number of codes, more than 0.
        bits: As `write`.
        source: The frame.
        parts: As `write`.

    Raises:
        FrameError: ``tables`` when the bytes are not tables of alphabets of 2**bits, ``length``, or ``truncated``.
    """
    bounds = _bounds(n, parts)
    first = source.byte()
    if first == 0:
        return None
    tables: list[Table] = []
    form = None
    if first < _ADAPTIVE:
        tables.append(Table.read(first, bits, source))
        for _ in bounds[2:]:
            head = source.byte()
            tables.append(tables[-1] if head == _AGAIN else Table.read(head, bits, source))
        typical, beyond = _typical(tables, bounds), source.varint()
        lanes = states_of.lanes_for(n, typical)
        length = typical // 8 + (beyond >> 1 ^ -(beyond & 1))
        if length < 0:
            raise FrameError("length", f"the coded bytes are {length}; 0 or more are right")
    else:
        whole, exponent = divmod(first - _ADAPTIVE, _WHOLE)
        if whole > (bits > adaptive.MODELLED):
            raise FrameError("tables", f"codes are coded in way {first}, which is none of this coder's")
        form = adaptive.form(bits, bool(whole))
        lanes = 1 << exponent
        if lanes not in states_of.LANES or (lanes > 1 and n < states_of.MANY):
            raise FrameError("tables", f"{n} codes are not coded in {lanes} lanes")
        length = source.varint()
    tail = source.varint() if lanes > 1 else 0
    most = bounds[-1] - bounds[-2]
    if form:
        most = adaptive.last_block(most, form) - 1
    if tail > most:
        raise FrameError("tables", f"states hold the last {tail} codes, where one model is of {most}")
    return Coded(length, lanes, tail, bounds, tuple(tables), form)


def decode(data: Bytes8, coded: Coded, bits: int) -> AnyArray:
    """Decode all codes, uint8 or uint16, from all of `data`.

    Raises:
        FrameError: ``codes`` when the decoder does not end with every bit used.
    """
    states, words = states_of.unpack(data, coded.lanes)
    n = coded.bounds[-1]
    codes: AnyArray = np.empty(n, np.uint8 if bits <= 8 else np.uint16)
    pull = kernels.pull_one if coded.lanes == 1 else kernels.pull
    at = 0
    for position, (start, end) in enumerate(pairwise(coded.bounds)):
        stop = min(end, n - coded.tail)
        if coded.form:
            table, decoding, at = adaptive.pull(codes, coded.form, start, stop, end, states, words, at)
        else:
            table = coded.tables[position]
            decoding = table.decoding()
            at = pull(codes, start, stop, *decoding, table.precision, table.group, states, words, at)
        if at < 0:
            raise FrameError("codes", f"the coded bytes end before {n} codes")
    used = at == words.size - (coded.lanes if coded.lanes > 1 else 0)
    if not used or not states_of.finish(states, codes, n - coded.tail, table, decoding):
        raise FrameError("codes", f"the decoder of {n} codes does not end where its encoder began")
    return codes


__all__ = ["MAX_BITS", "Coded", "Model", "decode", "read", "write"]
