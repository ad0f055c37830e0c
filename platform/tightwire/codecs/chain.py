"""Stages one after another, as they code one tensor."""

import math
from dataclasses import dataclass

import numpy as np

from tightwire.arrays import Flat
from tightwire.codecs.entropy import Rans
from tightwire.codecs.floats import Brain, Half, Plain
from tightwire.codecs.stage import Layout, Plane, Stage, Tally, Undo
from tightwire.codecs.topk import TopK
from tightwire.codecs.uniform import Uniform
from tightwire.errors import CodecError
from tightwire.keys import key as derive
from tightwire.wire.streams import Sink, Source

STAGES: tuple[type[Stage], ...] = (Plain, Half, Brain, Uniform, TopK, Rans)
"""All stages that a codec line can name."""

_WORDS = {"reals": "real values", "ints": "codes", "bytes": "final bytes"}


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

    def __str__(self) -> str:
        return " | ".join(map(str, self.stages))

    @property
    def unbiased(self) -> bool:
        """Whether the expectation of what is decoded is what was encoded."""
        return all(stage.unbiased for stage in self.stages)

    @property
    def passes(self) -> float:
        """Passes over a tensor's values that encoding makes; a stage behind a sparsifier passes over what is left."""
        passes, left = 0.0, 1.0
        for stage in self.stages:
            passes += stage.passes * left
            left *= stage.keeps
        return passes

    def tally(self, n: int) -> Tally:
        """What a paper would count for a tensor of `n` values, n > 0."""
        tally = Tally(n, 32.0)
        for stage in self.stages:
            tally = stage.tally(tally)
        return tally

    @property
    def _whole(self) -> tuple[Stage, ...]:
        """The stages as they run: real values at the end go out as float32."""
        return (*self.stages, Plain()) if self.stages[-1].gives == "reals" else self.stages

    def encode(self, values: Flat, sink: Sink, *, key: int, tensor: int) -> list[Plane]:
        """Write one tensor's part of a frame.

        Args:
            values: The tensor, flat, shape (n,), n > 0, contiguous.
            sink: Takes the bytes.
            key: The frame's key.
            tensor: Position of the tensor in its schema.

        Returns:
            All planes, from the reals to the bytes.

        Raises:
            CodecError: When the values hold a NaN or an infinity.
        """
        planes = [Plane.reals(values)]
        for position, stage in enumerate(self._whole):
            checked = stage.takes != "reals" or stage.hands_on_non_finite
            if not (checked or all(math.isfinite(value) for value in planes[-1].extremes)):
                raise CodecError(f"tensor {tensor} holds a NaN or an infinity; only finite updates can be encoded")
            planes.append(stage.encode(planes[-1], sink, derive(key, f"stage {position} of tensor {tensor}")))
        sink.write("codes", planes[-1].data)
        return planes

    def decode(self, source: Source, out: Flat) -> None:
        """Read one tensor's part of a frame into `out`, shape (n,), n > 0.

        Raises:
            FrameError: For bytes that are not such a part.
        """
        layout = Layout("reals", out.size, 32)
        undos: list[Undo] = []
        for stage in self._whole:
            layout, undo = stage.read(layout, source)
            undos.append(undo)
        plane = Plane(layout, source.array(layout.length))
        for position in reversed(range(len(undos))):
            plane = undos[position](plane, out if position == 0 else None)
        if plane.data is not out:
            np.copyto(out, plane.data)


def misfit(before: tuple[Stage, ...], stage: Stage) -> str | None:
    """Why `stage` cannot follow the stages `before`, which may be none; or None when it can."""
    given = before[-1].gives if before else "reals"
    if stage.takes == given:
        return None
    where = f"'{before[-1].name}' gives {_WORDS[given]}" if before else f"a chain starts from {_WORDS[given]}"
    wanted = f"'{stage.name}' takes {_WORDS[stage.takes]}, but {where}"
    if given == "reals":
        makers = sorted(other.name for other in STAGES if other.takes == given and other.gives == stage.takes)
        return f"{wanted}; put {' or '.join(makers)} before it"
    return f"{wanted}; it must come earlier, or be left out"
