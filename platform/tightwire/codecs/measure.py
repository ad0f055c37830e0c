"""What a codec costs and loses on given values, measured on real frames."""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

import numpy as np

from tightwire.arrays import AnyArray, Flat
from tightwire.codecs.auto import Auto, chosen
from tightwire.codecs.codec import Codec, decode
from tightwire.codecs.dgc import DeepGradientCompression
from tightwire.codecs.stage import Plane
from tightwire.codecs.stc import SparseTernary
from tightwire.codecs.threshold import Threshold
from tightwire.codecs.topk import TopK
from tightwire.errors import CodecError
from tightwire.keys import key
from tightwire.wire.ledger import Sections
from tightwire.wire.packing import unpack
from tightwire.wire.schema import Schema
from tightwire.wire.streams import Sink

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Measurement:
    """One codec on one vector. Bits are bits a value of the input; rates are GB/s of its float32 bytes."""

    codec: str
    values: int
    seeds: int
    wire_bits: float
    """Of the frames, everything included; mean over seeds."""
    nominal_bits: float
    """What a paper would count."""
    entropy_bits: float
    """What free positions and codes would take at their empirical entropies; values sent as floats count in full."""
    nmse: float
    """Squared error over squared norm; mean over seeds."""
    bias: float
    """Mean over seeds of <decoded - x, x> / <x, x>: about 0 when unbiased, -1 when all is lost."""
    encode_gbps: float
    """Median over seeds, wall time on this machine."""
    decode_gbps: float
    bytes: Sections
    """Of the first seed's frame."""
    chosen: tuple[str, ...] = ()
    """What `auto` chose, for each tensor that ends in it."""


_LATE = 1000
"""A round in which stages that warm up, such as `dgc`, have done so."""


def measure(codec: Codec, values: Flat, schema: Schema | None = None, *, seeds: int = 3, seed: int = 0) -> Measurement:
    """Encode and decode `values` under `seeds` different keys.

    Args:
        codec: What to measure.
        values: Shape (n,), n > 0, finite.
        schema: Their tensors; one vector if there is none.
        seeds: How often, each with a key of its own; 1 or more.
        seed: Where the keys come from.

    Raises:
        CodecError: When there are no values or seeds, or the values cannot be encoded.
    """
    if values.size == 0 or seeds < 1:
        raise CodecError(f"measuring wants a value and a seed at least, got {values.size} values and {seeds} seeds")
    schema = schema or Schema.single(values.size)
    exact = values.astype(np.float64)
    energy = float(exact @ exact)
    out = np.zeros(values.size, np.float32)
    codec.encode(values, schema, key=0, round=_LATE, client=0)  # compiles what is not yet compiled
    ledgers: list[Sections] = []
    errors, biases, encoding, decoding = [], [], [], []
    for trial in range(seeds):
        trial_key = key(seed, "measure", round=trial)
        spent, encoded = _timed(partial(codec.encode, values, schema, key=trial_key, round=_LATE, client=0))
        if trial == 0:
            decode(encoded.frame, schema, out=out)
        encoding.append(spent)
        decoding.append(_timed(partial(decode, encoded.frame, schema, out=out))[0])
        ledgers.append(encoded.sections)
        error = out.astype(np.float64) - exact
        errors.append(float(error @ error) / energy if energy else 0.0)
        biases.append(float(error @ exact) / energy if energy else 0.0)
    return Measurement(
        codec=str(codec),
        values=values.size,
        seeds=seeds,
        wire_bits=8 * sum(ledger.total for ledger in ledgers) / seeds / values.size,
        nominal_bits=codec.nominal_bits(schema) / values.size,
        entropy_bits=_entropy(codec, values, schema, key(seed, "measure")) / values.size,
        nmse=math.fsum(errors) / seeds,
        bias=math.fsum(biases) / seeds,
        encode_gbps=values.nbytes / 1e9 / float(np.median(encoding)),
        decode_gbps=values.nbytes / 1e9 / float(np.median(decoding)),
        bytes=ledgers[0],
        chosen=_chosen(codec, values, schema, key(seed, "measure")),
    )


def _chosen(codec: Codec, values: Flat, schema: Schema, frame_key: int) -> tuple[str, ...]:
    """The entropy coder that `auto` takes for each piece which ends in it."""
    planes = codec.planes(values, schema, Sink(), key=frame_key)
    pairs = zip(codec.pieces(schema), planes, strict=True)
    ends = [chosen(found[-2]).stage for piece, found in pairs if isinstance(piece.chain.stages[-1], Auto)]
    return tuple("packed" if stage is None else str(stage) for stage in ends)


def _timed(work: Callable[[], T]) -> tuple[float, T]:
    start = time.perf_counter()
    result = work()
    return time.perf_counter() - start, result


def _entropy(codec: Codec, values: Flat, schema: Schema, frame_key: int) -> float:
    """Bits of positions and codes at their empirical entropies."""
    bits = 0.0
    found = codec.planes(values, schema, Sink(), key=frame_key)
    for piece, planes in zip(codec.pieces(schema), found, strict=True):
        for stage, before, after in zip(piece.chain.stages, planes, planes[1:], strict=False):
            if isinstance(stage, _FREE_POSITIONS):
                kept = after.layout.count
                bits += _total_entropy(np.array([kept, before.layout.count - kept]))
        bits += _value_bits(planes)
    return bits


_FREE_POSITIONS = (TopK, Threshold, DeepGradientCompression, SparseTernary)
"""Stages that keep values wherever they are, and so have to say where."""


def _value_bits(planes: list[Plane]) -> float:
    for plane in planes:
        layout = plane.layout
        if layout.kind == "ints":
            return _total_entropy(np.bincount(unpack(plane.data, layout.count, layout.bits)))
    return 8.0 * planes[-1].layout.count


def _total_entropy(counts: AnyArray) -> float:
    """The entropy in bits of a histogram, times the number of its values."""
    present = counts[counts > 0].astype(np.float64)
    return float(present.sum() * np.log2(present.sum()) - present @ np.log2(present))
