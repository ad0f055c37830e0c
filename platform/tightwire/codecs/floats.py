"""Stages that send every real as a float of its own."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np

from tightwire.arrays import AnyArray
from tightwire.codecs.stage import Context, Kind, Layout, Plane, Stage, Tally, Target, Undo
from tightwire.errors import FrameError
from tightwire.wire.streams import Sink, Source


def _sent(raw: AnyArray) -> Plane:
    data = raw.view(np.uint8)
    return Plane(Layout("bytes", data.size, 8), data)


def _received(width: int, layout: Layout, widen: Callable[[AnyArray], AnyArray]) -> tuple[Layout, Undo]:
    def undo(plane: Plane, target: Target | None) -> Plane:
        into = target is not None and target.weight is None
        values = Plane.reals(target.memory if target is not None and into else np.empty(layout.count, np.float32))
        values.data[:] = widen(plane.data)
        if not np.isfinite(values.extremes).all():
            raise FrameError("non-finite", "the frame holds a NaN or an infinity")
        return values

    return Layout("bytes", layout.count * width, 8), undo


@dataclass(frozen=True)
class Plain(Stage):
    """Float32 as it is: 32 bits a value, exact."""

    name: ClassVar[str] = "none"
    example: ClassVar[str] = "none"
    takes: ClassVar[tuple[Kind, ...]] = ("reals",)
    gives: ClassVar[Kind | None] = "bytes"
    family: ClassVar[str] = "plain"
    passes: ClassVar[float] = 1.0
    source: ClassVar[str] = "IEEE 754 binary32"

    @property
    def unbiased(self) -> bool:
        """Always: it is exact."""
        return True

    def encode(self, plane: Plane, sink: Sink, context: Context) -> Plane:  # noqa: ARG002 - the interface's arguments
        """Little-endian float32."""
        return _sent(plane.data.astype("<f4", copy=False))

    def read(self, layout: Layout, source: Source) -> tuple[Layout, Undo]:  # noqa: ARG002 - as above
        """Four bytes a value."""
        return _received(4, layout, lambda data: data.view("<f4"))

    def tally(self, before: Tally) -> Tally:
        """32 bits a value."""
        return replace(before, bits=32.0)


@dataclass(frozen=True)
class Half(Stage):
    """Float16, rounded to nearest even, values beyond 65504 cut to it: 16 bits a value, relative error 2**-11."""

    name: ClassVar[str] = "fp16"
    example: ClassVar[str] = "fp16"
    takes: ClassVar[tuple[Kind, ...]] = ("reals",)
    gives: ClassVar[Kind | None] = "bytes"
    family: ClassVar[str] = "plain"
    passes: ClassVar[float] = 1.0
    source: ClassVar[str] = "IEEE 754 binary16"

    @property
    def unbiased(self) -> bool:
        """Never: it rounds to nearest."""
        return False

    def encode(self, plane: Plane, sink: Sink, context: Context) -> Plane:  # noqa: ARG002 - the interface's arguments
        """Little-endian float16."""
        largest = np.finfo(np.float16).max
        return _sent(np.clip(plane.data, -largest, largest).astype("<f2"))

    def read(self, layout: Layout, source: Source) -> tuple[Layout, Undo]:  # noqa: ARG002 - as above
        """Two bytes a value."""
        return _received(2, layout, lambda data: data.view("<f2"))

    def tally(self, before: Tally) -> Tally:
        """16 bits a value."""
        return replace(before, bits=16.0)


@dataclass(frozen=True)
class Brain(Stage):
    """Bfloat16, rounded to nearest even, never up to infinity: 16 bits a value, relative error 2**-8."""

    name: ClassVar[str] = "bf16"
    example: ClassVar[str] = "bf16"
    takes: ClassVar[tuple[Kind, ...]] = ("reals",)
    gives: ClassVar[Kind | None] = "bytes"
    family: ClassVar[str] = "plain"
    passes: ClassVar[float] = 1.0
    source: ClassVar[str] = "Kalamkar et al. 2019, arXiv 1905.12322"

    @property
    def unbiased(self) -> bool:
        """Never: it rounds to nearest."""
        return False

    def encode(self, plane: Plane, sink: Sink, context: Context) -> Plane:  # noqa: ARG002 - the interface's arguments
        """The upper halves of the float32, little-endian."""
        raw = plane.data.view(np.uint32)
        size = raw & np.uint32(0x7FFFFFFF)
        upper = (size + np.uint32(0x7FFF) + ((size >> np.uint32(16)) & np.uint32(1))) >> np.uint32(16)
        sign = (raw >> np.uint32(16)) & np.uint32(0x8000)
        return _sent((np.minimum(upper, np.uint32(0x7F7F)) | sign).astype("<u2"))

    def read(self, layout: Layout, source: Source) -> tuple[Layout, Undo]:  # noqa: ARG002 - as above
        """Two bytes a value."""
        return _received(2, layout, lambda data: (data.view("<u2").astype(np.uint32) << 16).view(np.float32))

    def tally(self, before: Tally) -> Tally:
        """16 bits a value."""
        return replace(before, bits=16.0)
