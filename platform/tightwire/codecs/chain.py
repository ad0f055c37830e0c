"""Stages one after another, as they code one tensor, or several as one vector."""

import math
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Protocol

import numpy as np

from tightwire.arrays import Flat
from tightwire.codecs.flatten import Flatten
from tightwire.codecs.floats import Plain
from tightwire.codecs.registry import stages as all_stages
from tightwire.codecs.stage import Context, Layout, Plane, Stage, Tally, Target, Undo
from tightwire.errors import CodecError
from tightwire.keys import key as derive
from tightwire.wire.streams import Sink, Source

_WORDS = {"reals": "real values", "ints": "codes", "bytes": "final bytes"}


@dataclass(frozen=True, slots=True)
class Part:
    """What a chain codes at one go: a tensor, or all tensors of a flattened chain."""

    name: str
    """Of the tensor; of the first of several."""
    position: int
    """Of that tensor in the schema."""
    shape: tuple[int, ...]

    @property
    def size(self) -> int:
        """Number of values."""
        return math.prod(self.shape)

    @property
    def layout(self) -> Layout:
        """Of the reals."""
        return Layout("reals", self.size, 32, self.shape)


@dataclass(frozen=True)
class Chain:
    """Stages, each taking what the one before it gives; the first takes reals.

    Where the last gives reals they are sent as float32, and codes are sent packed.

    Raises:
        CodecError: When a stage cannot take what it would get.
    """

    stages: tuple[Stage, ...]

    def __post_init__(self) -> None:
        if not self.stages:
            raise CodecError("a chain needs a stage; 'none' sends values as they are")
        for position in range(len(self.stages)):
            if reason := misfit(self.stages[:position], self.stages[position]):
                raise CodecError(reason)

    @cached_property
    def _hash(self) -> int:
        return zlib.crc32(str(self).encode())

    def __hash__(self) -> int:
        """Computed once, and the same in all processes, as that of a codec."""
        return self._hash

    def __str__(self) -> str:
        return " | ".join(map(str, self.stages))

    @property
    def unbiased(self) -> bool:
        """Whether the expectation of what is decoded is what was encoded."""
        return all(stage.unbiased for stage in self.stages)

    @property
    def flattens(self) -> bool:
        """Whether all tensors of this chain are coded as one vector."""
        return isinstance(self.stages[0], Flatten)

    @property
    def plain(self) -> bool:
        """Whether values are sent as they are."""
        return self.stages == (Plain(),)

    @property
    def passes(self) -> float:
        """Passes over a tensor's values that encoding makes; a stage behind a sparsifier passes over what is left."""
        passes, left = 0.0, 1.0
        for stage in self.stages:
            passes += stage.passes * left
            left *= stage.keeps
        return passes

    def tally(self, shape: tuple[int, ...]) -> Tally:
        """What a paper would count for a tensor of that shape, not empty."""
        tally = Tally(math.prod(shape), 32.0, shape=shape)
        for stage in self.stages:
            tally = stage.tally(tally)
        return tally

    @cached_property
    def whole(self) -> tuple[Stage, ...]:
        """The stages as they run: real values at the end go out as float32."""
        return (*self.stages, Plain()) if _given(self.stages) == "reals" else self.stages

    def encode(
        self,
        values: Flat,
        sink: Sink,
        part: Part,
        *,
        key: int,
        round: int = 0,
        memory: Mapping[str, Flat] | None = None,
        section: str = "codes",
    ) -> tuple[list[Plane], dict[str, Flat]]:
        """Write one part of a frame.

        Args:
            values: Flat, shape (n,), n > 0, contiguous.
            sink: Takes the bytes.
            part: What the values are.
            key: The frame's key.
            round: The frame's round.
            memory: What stages left when they last encoded, by `slot`.
            section: Where the last plane's bytes are booked.

        Returns:
            All planes, from the reals to the bytes; and what stages leave, by `slot`.

        Raises:
            CodecError: When the values hold a NaN or an infinity.
        """
        planes = [Plane(part.layout, values)]
        left: dict[str, Flat] = {}
        for position, stage in enumerate(self.whole):
            if length := stage.looks(planes[-1].layout):
                planes[-1].group_extremes(length)
            recalled = memory.get(slot(part, position, stage)) if memory else None
            own = derive(key, f"stage {position} of tensor {part.position}")
            context = Context(own, round, recalled, tensor=part.position)
            check_finite(planes[-1], stage, context)
            planes.append(stage.encode(planes[-1], sink, context))
            if context.left is not None:
                left[slot(part, position, stage)] = context.left
        sink.write(section, planes[-1].data)
        return planes, left

    def decode(self, source: Source, part: Part, target: Target) -> None:
        """Read one part of a frame.

        Args:
            source: The frame, at the place where `encode` wrote.
            part: What the values are.
            target: Takes them.

        Raises:
            FrameError: For bytes that are not such a part.
        """
        layout = part.layout
        undos: list[Undo] = []
        for stage in self.whole:
            layout, undo = stage.read(layout, source)
            undos.append(undo)
        received = source.view if self.whole[-1].undoes_in_place else source.array
        plane = Plane(layout, received(layout.length))
        for position in reversed(range(len(undos))):
            plane = undos[position](plane, target if position == 0 else None)
        if plane.data is not target.memory:
            target.put(plane.data)


class Bounded(Protocol):
    """A plane that knows its extremes, on the host or elsewhere."""

    @property
    def layout(self) -> Layout:
        """Its form."""
        ...

    @property
    def extremes(self) -> tuple[np.float32, np.float32]:
        """Smallest and largest of its reals."""
        ...


def check_finite(plane: Bounded, stage: Stage, context: Context) -> None:
    """Refuse reals that a stage cannot take.

    Raises:
        CodecError: When they hold a NaN or an infinity.
    """
    if plane.layout.kind != "reals" or stage.hands_on_non_finite or stage.refuses_non_finite:
        return
    low, high = plane.extremes
    if not (math.isfinite(low) and math.isfinite(high)):
        context.refuse_non_finite()


def slot(part: Part, position: int, stage: Stage) -> str:
    """The name of what a stage remembers: it fits only the same stage on a tensor of the same name and shape."""
    return f"{part.name}{list(part.shape)}/{position}/{stage}".replace(" ", "")


def _given(stages: tuple[Stage, ...]) -> str:
    """The kind of plane that `stages` end in."""
    return next((stage.gives for stage in reversed(stages) if stage.gives is not None), "reals")


def misfit(before: tuple[Stage, ...], stage: Stage) -> str | None:
    """Why `stage` cannot follow the stages `before`, which may be none; or None when it can."""
    if isinstance(stage, Flatten) and before:
        return "'flatten' makes one vector of all tensors, so it comes first in its chain"
    given = _given(before)
    if given in stage.takes:
        if given == "ints" and stage.gives is None and not _quantiser(before).has_zero:
            return (
                f"'{stage.name}' drops codes that stand for small values, but '{_quantiser(before).name}' has no zero"
            )
        shaper = next((other for other in reversed(before) if other.axes != "kept"), None)
        if stage.wants_axes and shaper is not None and shaper.axes == "lost":
            return (
                f"'{stage.name}' works on a tensor's axes, but '{shaper.name}' gives values without any; it must come "
                "earlier, or be left out"
            )
        return None
    maker = next((other for other in reversed(before) if other.gives is not None), None)
    where = f"'{maker.name}' gives {_WORDS[given]}" if maker else f"a chain starts from {_WORDS[given]}"
    wanted = f"'{stage.name}' takes {' or '.join(_WORDS[kind] for kind in stage.takes)}, but {where}"
    if given == "reals":
        makers = sorted(
            other.name
            for other in all_stages().values()
            if given in other.takes and other.gives in stage.takes and other.family in ("quantiser", "entropy")
        )
        return f"{wanted}; put {' or '.join(makers)} before it"
    return f"{wanted}; it must come earlier, or be left out"


def _quantiser(stages: tuple[Stage, ...]) -> Stage:
    """The stage that made codes of reals."""
    return next(stage for stage in reversed(stages) if stage.gives == "ints")


def shapeless(layout: Layout) -> Layout:
    """The layout of reals that no longer lie as in their tensor."""
    return replace(layout, shape=())
