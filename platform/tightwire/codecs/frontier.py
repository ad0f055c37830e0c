"""Rate against distortion for the whole family on one update: which codec loses least at which size."""

from collections.abc import Callable
from dataclasses import dataclass

from tightwire.arrays import Flat
from tightwire.codecs.codec import Codec
from tightwire.codecs.measure import measure
from tightwire.wire.schema import Schema


@dataclass(frozen=True, slots=True)
class Curve:
    """One codec at several settings."""

    name: str
    family: str
    """As `Stage.family`."""
    lines: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Point:
    """One setting, measured."""

    curve: str
    family: str
    line: str
    bits: float
    """Of the frame, a value of the update, everything included."""
    nmse: float
    """Squared error over squared norm."""


def _lines(pattern: str, *settings: object) -> tuple[str, ...]:
    return tuple(pattern.format(setting) for setting in settings)


_DENSITIES = (0.003, 0.01, 0.03, 0.1, 0.3)

CURVES: tuple[Curve, ...] = (
    Curve("uniform, nearest | rans", "quantiser", _lines("uniform({}, rounding=nearest) | rans", 2, 3, 4, 5, 6, 8)),
    Curve("uniform, stochastic | rans", "quantiser", _lines("uniform({}) | rans", 2, 3, 4, 5, 6, 8)),
    Curve("qsgd | rans", "quantiser", _lines("qsgd({}) | rans", 2, 3, 4, 6, 8)),
    Curve("terngrad | rans", "quantiser", ("terngrad | rans",)),
    Curve("sign", "quantiser", ("sign",)),
    Curve("onebit", "quantiser", ("onebit",)),
    Curve("natural | rans", "quantiser", ("natural | rans",)),
    Curve("kmeans | rans", "quantiser", _lines("kmeans({}) | rans", 1, 2, 3, 4, 6)),
    Curve("fp8, fp16", "quantiser", ("fp8(e5m2)", "fp8(e4m3)", "bf16", "fp16")),
    Curve("rotate | uniform | rans", "quantiser", _lines("rotate | uniform({}) | rans", 2, 3, 4, 6)),
    Curve("eden", "quantiser", _lines("eden({})", 0.25, 0.5, 1, 2, 3, 4, 6)),
    Curve("trellis | rans", "quantiser", _lines("trellis({}) | rans", 0.5, 1, 1.5, 2, 3, 4, 6)),
    Curve("topk, fp32", "sparsifier", _lines("topk({})", *_DENSITIES)),
    Curve("topk | uniform(4) | rans", "sparsifier", _lines("topk({}) | uniform(4) | rans", *_DENSITIES)),
    Curve(
        "flatten | topk | uniform(4) | rans",
        "sparsifier",
        _lines("flatten | topk({}) | uniform(4) | rans", *_DENSITIES),
    ),
    Curve(
        "threshold | uniform(4) | rans",
        "sparsifier",
        _lines("threshold(quantile={}) | uniform(4) | rans", 0.997, 0.99, 0.97, 0.9, 0.7),
    ),
    Curve("randk | uniform(4)", "sparsifier", _lines("randk({}, none) | uniform(4)", *_DENSITIES)),
    Curve("stc", "sparsifier", _lines("stc({})", *_DENSITIES)),
    Curve("structured(rows)", "sparsifier", _lines("structured(rows, {}) | uniform(4) | rans", 0.05, 0.1, 0.3)),
    Curve("powersgd", "factorisation", _lines("powersgd({})", 1, 2, 4, 8, 16)),
    Curve("svd | uniform(6)", "factorisation", _lines("svd({}) | uniform(6) | rans", 1, 4, 16)),
    Curve("sketch, top 1 %", "factorisation", _lines("sketch(5, {}, density=0.01)", 500, 2000, 8000)),
)
"""The family at settings from coarse to fine; without `joint`, which wants a cohort, and `dgc`, which wants rounds."""


def frontier(values: Flat, schema: Schema, watch: Callable[[str], None]) -> list[Point]:
    """Measure every curve's settings on `values`.

    Args:
        values: Shape (schema.size,), finite.
        schema: Their tensors.
        watch: Told of each line before it is measured.

    Raises:
        CodecError: When the values cannot be encoded.
    """
    points = []
    for curve in CURVES:
        for line in curve.lines:
            watch(line)
            found = measure(Codec.parse(line), values, schema, seeds=1)
            points.append(Point(curve.name, curve.family, line, found.wire_bits, found.nmse))
    return points
