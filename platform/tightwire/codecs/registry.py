"""All stages that a codec line can name: those of the library, and those that installed packages register.

A package registers a stage by an entry point of the group ``tightwire.codecs``; its name in codec lines is the
stage's own.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from importlib.metadata import entry_points

from tightwire.codecs.auto import Auto
from tightwire.codecs.dgc import DeepGradientCompression
from tightwire.codecs.eden import Eden
from tightwire.codecs.entropy import Rans
from tightwire.codecs.flatten import Flatten
from tightwire.codecs.floats import Brain, Half, Plain
from tightwire.codecs.fp8 import Fp8
from tightwire.codecs.generic import Zstd
from tightwire.codecs.joint import Joint
from tightwire.codecs.kmeans import KMeans
from tightwire.codecs.lowrank import PowerSGD, TruncatedSVD
from tightwire.codecs.natural import Natural
from tightwire.codecs.qsgd import QSGD
from tightwire.codecs.randk import RandK
from tightwire.codecs.rotate import Rotate
from tightwire.codecs.signs import OneBit, Sign
from tightwire.codecs.sketch import CountSketch
from tightwire.codecs.stage import Stage
from tightwire.codecs.stc import SparseTernary
from tightwire.codecs.structured import Structured
from tightwire.codecs.ternary import TernGrad
from tightwire.codecs.threshold import Threshold
from tightwire.codecs.topk import TopK
from tightwire.codecs.trellis import TrellisCoded
from tightwire.codecs.uniform import Uniform
from tightwire.codecs.universal import Elias, Golomb, Runs
from tightwire.errors import CodecError

GROUP = "tightwire.codecs"
"""The entry point group."""

BUILT_IN: tuple[type[Stage], ...] = (
    Plain,
    Half,
    Brain,
    Flatten,
    Uniform,
    TopK,
    CountSketch,
    PowerSGD,
    TruncatedSVD,
    Threshold,
    Structured,
    SparseTernary,
    RandK,
    DeepGradientCompression,
    Rans,
    Elias,
    Golomb,
    Runs,
    Zstd,
    Auto,
    Joint,
    Fp8,
    Natural,
    QSGD,
    TernGrad,
    Rotate,
    Eden,
    Sign,
    OneBit,
    TrellisCoded,
    KMeans,
)


@cache
def stages() -> dict[str, type[Stage]]:
    """Every stage by its name, the library's own first.

    Raises:
        CodecError: When a registered stage cannot be loaded, is not a stage, or takes a name that is taken.
    """
    found = {stage.name: stage for stage in BUILT_IN}
    for entry in sorted(entry_points(group=GROUP), key=lambda entry: entry.name):
        where = f"entry point {entry.name!r} of group {GROUP!r} ({entry.value})"
        try:
            stage = entry.load()
        except Exception as error:
            raise CodecError(f"{where} cannot be loaded: {type(error).__name__}: {error}") from error
        if not (isinstance(stage, type) and issubclass(stage, Stage)):
            raise CodecError(f"{where} must name a subclass of tightwire.codecs.stage.Stage, got {stage!r}")
        if found.get(stage.name, stage) is not stage:
            raise CodecError(f"{where} takes the name {stage.name!r}, which {found[stage.name].__module__} has")
        found[stage.name] = stage
    return found


@contextmanager
def registered(stage: type[Stage]) -> Iterator[None]:
    """Make a stage known for a while, as an installed package's entry point would.

    Raises:
        CodecError: When its name is taken by another stage.
    """
    table = stages()
    if table.get(stage.name, stage) is not stage:
        raise CodecError(f"the name {stage.name!r} is taken by {table[stage.name].__module__}; give the stage another")
    added = stage.name not in table
    table[stage.name] = stage
    try:
        yield
    finally:
        if added:
            del table[stage.name]
