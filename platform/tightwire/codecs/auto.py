"""The smallest of all entropy coders, plane by plane."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

from tightwire.codecs.entropy import Rans
from tightwire.codecs.generic import Zstd
from tightwire.codecs.stage import Context, Kind, Layout, Plane, Stage, Tally, Undo
from tightwire.codecs.universal import Elias, Golomb, Runs, Universal, packed, sent, values_of
from tightwire.errors import FrameError
from tightwire.wire import modes
from tightwire.wire.streams import Sink, Source

_RANS = Rans()
_UNIVERSAL: tuple[Universal, ...] = (Elias(), Elias("gamma"), Golomb(), Runs())
_ZSTD = Zstd()
_TRIED: tuple[Stage, ...] = (_RANS, Rans(model="adaptive"), _ZSTD)

CHOICES: tuple[Stage, ...] = (*_UNIVERSAL, *_TRIED)
"""What there is to choose from."""


@dataclass(frozen=True)
class Choice:
    """One way to code a plane."""

    stage: Stage | None
    """None for codes that stay packed."""
    tables: bytes
    plane: Plane

    @property
    def size(self) -> int:
        """Bytes on the wire."""
        return len(self.tables) + self.plane.layout.length


def _made(stage: Stage, plane: Plane, context: Context) -> Choice:
    """What `stage` makes of a plane."""
    sink = Sink()
    result = stage.encode(plane, sink, context)
    tables = b"".join(sink.pieces)
    return Choice(None if tables[0] == modes.PACKED else stage, tables, result)


def _choices(plane: Plane, context: Context) -> Iterator[Choice]:
    """Codes as they are, the smallest of the coders that know their size, and all others."""
    yield Choice(None, bytes([modes.PACKED]), sent(plane.data))
    if values := values_of(plane):
        found = ((stage, form) for stage in _UNIVERSAL if (form := stage.best(values)))
        if best := min(found, key=lambda pair: pair[1].size, default=None):
            coder, form = best
            yield Choice(coder, form.tables, sent(form.write()))
    for stage in _TRIED:
        yield _made(stage, plane, context)


def chosen(plane: Plane, context: Context | None = None) -> Choice:
    """What `Auto` makes of a plane of codes: `str(choice.stage)` names the coder, or it is None.

    Args:
        plane: Ints.
        context: As `Stage.encode`; no choice makes use of it.
    """
    return min(_choices(plane, context or Context(0)), key=lambda choice: choice.size)


@dataclass(frozen=True)
class Auto(Stage):
    """The smallest of `packed`, `elias` in both codes, `golomb`, `runs`, `rans` under both models, and `zstd`.

    All of them share one numbering of their first bytes, so that the choice costs nothing: a frame is never larger
    than that of any choice. Elias, Golomb and run-length codes know their sizes from histograms, and only the smallest
    is written; rANS and zstd are tried. Costs about what these three cost together. Lossless.
    """

    name: ClassVar[str] = "auto"
    example: ClassVar[str] = "auto"
    takes: ClassVar[tuple[Kind, ...]] = ("ints",)
    gives: ClassVar[Kind | None] = "bytes"
    family: ClassVar[str] = "entropy"
    passes: ClassVar[float] = 30.0
    source: ClassVar[str] = "the sources of its choices"

    @property
    def unbiased(self) -> bool:
        """Always: it is lossless."""
        return True

    def bound(self, layout: Layout) -> float:  # noqa: ARG002 - the interface's arguments
        """Nothing is lost."""
        return 0.0

    def encode(self, plane: Plane, sink: Sink, context: Context) -> Plane:
        """As the choice."""
        choice = chosen(plane, context)
        sink.write("tables", choice.tables)
        return choice.plane

    def read(self, layout: Layout, source: Source) -> tuple[Layout, Undo]:
        """As the choice, which the first byte tells."""
        if not source.left:
            raise FrameError("truncated", "a coded plane wants a first byte")
        mode = int(source.peek()[0])
        if mode == modes.PACKED:
            source.byte()
            return packed(layout)
        if mode < modes.FIRST:
            return _RANS.read(layout, source)
        if mode in _ZSTD.firsts:
            return _ZSTD.read(layout, source)
        for stage in _UNIVERSAL:
            if mode in stage.firsts:
                return stage.read(layout, source)
        raise FrameError("tables", f"no coder writes a plane whose first byte is {mode}")

    def tally(self, before: Tally) -> Tally:
        """Papers count the codes it takes."""
        return before
